#include <torch/torch.h>

#include "models/kernels/kernels.h"

namespace preceptor::models::kernels {
namespace {

/// rows [K, B, L, X] in the order of the steps: [k, b, t] is rows[k, b, order[k, t]].
torch::Tensor by_step(const torch::Tensor& rows, const torch::Tensor& order) {
  return rows.gather(2, order.view({order.size(0), 1, order.size(1), 1}).expand_as(rows));
}

}  // namespace

at::Tensor selective_scan_reference(const at::Tensor& u, const at::Tensor& delta, const at::Tensor& a, const at::Tensor& b,
                                    const at::Tensor& c, const at::Tensor& skip, const at::Tensor& delta_bias,
                                    const at::Tensor& order) {
  const auto per_channel = [](const torch::Tensor& x) { return x.unsqueeze(1).unsqueeze(1); };  // [K, …] → [K, 1, 1, …]
  const auto steps = order.to(u.device(), torch::kLong);
  const auto x = by_step(u.unsqueeze(0).expand_as(delta), steps);
  const auto d = torch::softplus(by_step(delta, steps) + per_channel(delta_bias));
  // unbind, not select: the derivative of L selects costs L² here.
  const auto decay = (d.unsqueeze(-1) * per_channel(a)).exp().unbind(2);
  const auto input = ((d * x).unsqueeze(-1) * by_step(b, steps).unsqueeze(-2)).unbind(2);
  const auto output = by_step(c, steps).unsqueeze(-1).unbind(2);
  auto h = torch::zeros_like(input[0]);
  std::vector<torch::Tensor> y;
  for (std::size_t t = 0; t < decay.size(); ++t) {
    h = decay[t] * h + input[t];
    y.push_back(torch::matmul(h, output[t]).squeeze(-1));
  }
  // The inverse of a permutation is the order that sorts it.
  return by_step(torch::stack(y, 2) + x * per_channel(skip), steps.argsort(1, false)).sum(0);
}

at::Tensor bi_wkv_reference(const at::Tensor& decay, const at::Tensor& first, const at::Tensor& k, const at::Tensor& v) {
  const auto length = k.size(1);
  const auto at = torch::arange(length, k.options());
  const auto distance = (at.unsqueeze(0) - at.unsqueeze(1)).abs().unsqueeze(-1);
  const auto bias = torch::where(distance == 0, first / double(length), (1 - distance) * (decay / double(length)));  // [t, i, C]
  return (torch::softmax(bias + k.unsqueeze(1), 2) * v.unsqueeze(1)).sum(2);
}

}  // namespace preceptor::models::kernels
