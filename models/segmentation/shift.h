#pragma once
#include <torch/torch.h>

#include "models/kernels/dispatch.h"

namespace preceptor::models {

/// Moves five groups of channels by −2, −1, 0, 1 and 2 tokens along one axis, zeros entering at the edge (UNeXt's
/// shifted MLP, arXiv:2203.04967). x [B, H, W, C], C at least 17, so that there are five groups; axis 1 or 2. One copy
/// each way: the derivative is the shift back.
class Shift : public torch::autograd::Function<Shift> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x, std::int64_t axis) {
    context->saved_data["axis"] = axis;
    return moved(x, axis, 1);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    return {moved(gradients[0], context->saved_data["axis"].toInt(), -1), torch::Tensor()};
  }

 private:
  static torch::Tensor moved(const torch::Tensor& x, std::int64_t axis, int sign) {
    auto y = torch::zeros_like(x);
    const auto from = x.chunk(5, 3), to = y.chunk(5, 3);
    for (int group = 0; group < 5; ++group) {
      const std::int64_t by = sign * (group - 2), kept = x.size(axis) - std::abs(by);
      if (kept <= 0) continue;
      to[std::size_t(group)].narrow(axis, std::max<std::int64_t>(by, 0), kept)
          .copy_(from[std::size_t(group)].narrow(axis, std::max<std::int64_t>(-by, 0), kept));
    }
    return y;
  }
};

/// The same without writing in place, for a traced network.
inline torch::Tensor pure_shift(const torch::Tensor& x, std::int64_t axis) {
  auto groups = x.chunk(5, 3);
  for (std::int64_t group = 0; group < 5; ++group) {
    const auto by = group - 2;
    auto& part = groups[std::size_t(group)];
    if (std::abs(by) >= x.size(axis)) part = part * 0;
    else part = torch::constant_pad_nd(part, axis == 1 ? std::vector<std::int64_t>{0, 0, 0, 0, by, -by} : std::vector<std::int64_t>{0, 0, by, -by});
  }
  return torch::cat(groups, 3);
}

inline torch::Tensor shift(const torch::Tensor& x, std::int64_t axis) {
  return kernels::tracing() ? pure_shift(x, axis) : Shift::apply(x, axis);
}

}  // namespace preceptor::models
