#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <numbers>

#include "models/kernels/dispatch.h"
#include "models/kernels/kernels.h"
#include "models/kernels/selective_scan_simd.h"

namespace preceptor::models::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

void check(const torch::Tensor& u, const torch::Tensor& delta, const torch::Tensor& a, const torch::Tensor& b,
           const torch::Tensor& c, const torch::Tensor& skip, const torch::Tensor& delta_bias, const torch::Tensor& order) {
  TORCH_CHECK(u.dim() == 3 && a.dim() == 3, "selective scan: u must be [B, L, D] and a [K, D, N], not ", u.sizes(), " and ",
              a.sizes());
  const auto B = u.size(0), L = u.size(1), D = u.size(2), K = a.size(0), N = a.size(2);
  const auto expect = [](const char* name, const torch::Tensor& x, std::initializer_list<std::int64_t> sizes) {
    TORCH_CHECK(x.sizes() == at::IntArrayRef(sizes), "selective scan: ", name, " must be ", at::IntArrayRef(sizes), ", not ",
                x.sizes());
  };
  expect("delta", delta, {K, B, L, D});
  expect("a", a, {K, D, N});
  expect("b", b, {K, B, L, N});
  expect("c", c, {K, B, L, N});
  expect("skip", skip, {K, D});
  expect("delta_bias", delta_bias, {K, D});
  expect("order", order, {K, L});
  TORCH_CHECK(u.numel() > 0 && a.numel() > 0, "selective scan: nothing to scan in ", u.sizes(), " with ", a.sizes());
  TORCH_CHECK(order.scalar_type() == torch::kInt32 && order.device().is_cpu(), "selective scan: order must be int32 on the CPU");
}

Rows<const float> rows(const torch::Tensor& x) {
  TORCH_CHECK(x.stride(3) == 1 || x.size(3) == 1, "selective scan: the last dimension must be contiguous");
  return {x.data_ptr<float>(), x.stride(0), x.stride(1), x.stride(2)};
}

/// What a Scan points into.
struct Prepared {
  torch::Tensor u, delta, a, b, c, skip, delta_bias, order;
  Scan scan() const {
    return {a.size(0), u.size(0), u.size(1), u.size(2), a.size(1), u.data_ptr<float>(), rows(delta), rows(b), rows(c),
            a.data_ptr<float>(), skip.data_ptr<float>(), delta_bias.data_ptr<float>(), order.data_ptr<std::int32_t>()};
  }
};

torch::Tensor run(const Prepared& p, const torch::Tensor& kept) {
  const auto scan = p.scan();
  auto y = torch::empty_like(p.u);
  float *to = y.data_ptr<float>(), *states = kept.defined() ? kept.data_ptr<float>() : nullptr;
  for_channels(scan.batch, scan.channels,
               [&](auto b, auto first, auto last) { selective_scan_forward(scan, b, first, last, to, states); });
  return y;
}

struct SelectiveScan : torch::autograd::Function<SelectiveScan> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& u, const torch::Tensor& delta,
                               const torch::Tensor& a, const torch::Tensor& b, const torch::Tensor& c, const torch::Tensor& skip,
                               const torch::Tensor& delta_bias, const torch::Tensor& order, const torch::Tensor& packed) {
    const Prepared p{u, delta, packed, b, c, pad(skip), pad(delta_bias), order};
    const auto kept = torch::empty({u.size(0), a.size(0), p.scan().chunks() + 1, packed.size(1), packed.size(2)}, u.options());
    const auto y = run(p, kept);
    context->save_for_backward({p.u, p.delta, p.a, p.b, p.c, p.skip, p.delta_bias, p.order, kept});
    return y;
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& grads) {
    TORCH_CHECK(!torch::GradMode::is_enabled(), "selective scan: no second derivative");
    const auto saved = context->get_saved_variables();
    const Prepared p{saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], saved[6], saved[7]};
    const auto scan = p.scan();
    const auto grad = grads[0].contiguous(), kept = saved[8];
    const auto B = scan.batch, K = scan.orders, L = scan.length, D = scan.channels, N = scan.states;
    const auto du = torch::empty_like(p.u), delta = torch::empty({K, B, L, D}, grad.options()),
               b = torch::empty({K, B, L, N}, grad.options()), c = torch::empty_like(b),
               a = torch::zeros({B, K, N, padded(D)}, grad.options()), skip = torch::zeros({B, K, padded(D)}, grad.options()),
               bias = torch::zeros_like(skip);
    const ScanGradients out{du.data_ptr<float>(), delta.data_ptr<float>(), b.data_ptr<float>(), c.data_ptr<float>(),
                            a.data_ptr<float>(), skip.data_ptr<float>(), bias.data_ptr<float>()};
    const float *from = grad.data_ptr<float>(), *states = kept.data_ptr<float>();
    // A sample is one thread's, and samples are summed in their order: the same result whatever the number of threads.
    at::parallel_for(0, B, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto sample = begin; sample < end; ++sample) selective_scan_backward(scan, sample, from, states, out);
    });
    const auto total = [&](const torch::Tensor& x) { return x.sum(0).narrow(-1, 0, D); };
    return {du, delta, total(a).transpose(1, 2), b, c, total(skip), total(bias), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

at::Tensor selective_scan(const at::Tensor& u, const at::Tensor& delta, const at::Tensor& a, const at::Tensor& b,
                          const at::Tensor& c, const at::Tensor& skip, const at::Tensor& delta_bias, const at::Tensor& order) {
  if (tracing()) return call("preceptor::selective_scan", {u, delta, a, b, c, skip, delta_bias, order});
  check(u, delta, a, b, c, skip, delta_bias, order);
  if (!serve({u, delta, a, b, c, skip, delta_bias})) return selective_scan_reference(u, delta, a, b, c, skip, delta_bias, order);
  torch::Tensor packed;
  {
    torch::NoGradGuard constant;  // its derivative is SelectiveScan's, by `a`
    TORCH_CHECK(!(a.max().item<float>() > 0), "selective scan: a must not be positive");
    packed = pad((a * std::numbers::log2e).transpose(1, 2));
  }
  const auto rows_of_u = u.contiguous(), orders = order.contiguous();
  std::uint32_t farthest = 0;  // what is negative counts as large
  for (const auto token : at::ArrayRef<std::int32_t>(orders.data_ptr<std::int32_t>(), std::size_t(orders.numel())))
    farthest = std::max(farthest, std::uint32_t(token));
  TORCH_CHECK(farthest < u.size(1), "selective scan: order names a token beyond ", u.size(1));
  if (wants_gradient({u, delta, a, b, c, skip, delta_bias}))
    return SelectiveScan::apply(rows_of_u, delta, a, b, c, skip, delta_bias, orders, packed);
  return run({rows_of_u, delta, packed, b, c, pad(skip), pad(delta_bias), orders}, {});
}

}  // namespace preceptor::models::kernels
