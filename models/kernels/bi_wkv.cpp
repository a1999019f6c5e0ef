#include <torch/torch.h>

#include "models/kernels/bi_wkv_simd.h"
#include "models/kernels/dispatch.h"
#include "models/kernels/kernels.h"

namespace preceptor::models::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

Wkv view(const torch::Tensor& decay, const torch::Tensor& first, const torch::Tensor& k, const torch::Tensor& v) {
  return {k.size(0), k.size(1), k.size(2), decay.data_ptr<float>(), first.data_ptr<float>(),
          k.data_ptr<float>(), v.data_ptr<float>()};
}

/// y, and what the backward pass needs of the denominators, if wanted. All arguments contiguous, w and u padded.
tensor_list run(const torch::Tensor& w, const torch::Tensor& u, const torch::Tensor& k, const torch::Tensor& v, bool keep) {
  tensor_list results{torch::empty_like(k)};
  if (keep) results.insert(results.end(), {torch::empty_like(k), torch::empty_like(k)});
  const auto wkv = view(w, u, k, v);
  float *y = results[0].data_ptr<float>(), *top = keep ? results[1].data_ptr<float>() : nullptr,
        *inverse = keep ? results[2].data_ptr<float>() : nullptr;
  for_channels(wkv.batch, wkv.channels,
               [&](auto b, auto first, auto last) { bi_wkv_forward(wkv, b, first, last, y, top, inverse); });
  return results;
}

torch::Tensor per_step(const torch::Tensor& x, const torch::Tensor& k) { return pad(x / k.size(1)); }

struct BiWkv : torch::autograd::Function<BiWkv> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& decay, const torch::Tensor& first,
                               const torch::Tensor& keys, const torch::Tensor& values) {
    const auto k = keys.contiguous(), v = values.contiguous(), w = per_step(decay, k), u = per_step(first, k);
    const auto results = run(w, u, k, v, true);
    context->save_for_backward({w, u, k, v, results[0], results[1], results[2]});
    return results[0];
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& grads) {
    TORCH_CHECK(!torch::GradMode::is_enabled(), "BiWKV: no second derivative");
    const auto saved = context->get_saved_variables();
    const auto &w = saved[0], &k = saved[2];
    const auto grad = grads[0].contiguous(), to_k = torch::empty_like(k), to_v = torch::empty_like(k),
               to_decay = torch::empty({k.size(0), w.size(0)}, k.options()), to_first = torch::empty_like(to_decay);
    const auto wkv = view(w, saved[1], k, saved[3]);
    const float *y = saved[4].data_ptr<float>(), *top = saved[5].data_ptr<float>(), *inverse = saved[6].data_ptr<float>(),
                *from = grad.data_ptr<float>();
    float *dk = to_k.data_ptr<float>(), *dv = to_v.data_ptr<float>();
    float *dw = to_decay.data_ptr<float>(), *du = to_first.data_ptr<float>();
    for_channels(wkv.batch, wkv.channels, [&](auto b, auto begin, auto end) {
      bi_wkv_backward(wkv, b, begin, end, y, top, inverse, from, dk, dv, dw, du);
    });
    const auto total = [&](const torch::Tensor& x) { return x.sum(0).narrow(0, 0, k.size(2)) / k.size(1); };
    return {total(to_decay), total(to_first), to_k, to_v};
  }
};

}  // namespace

at::Tensor bi_wkv(const at::Tensor& decay, const at::Tensor& first, const at::Tensor& k, const at::Tensor& v) {
  if (tracing()) return call("preceptor::bi_wkv", {decay, first, k, v});
  TORCH_CHECK(k.dim() == 3 && k.numel() > 0 && v.sizes() == k.sizes(), "BiWKV: k and v must both be [B, T, C], not ",
              k.sizes(), " and ", v.sizes());
  TORCH_CHECK(decay.dim() == 1 && decay.size(0) == k.size(2) && first.sizes() == decay.sizes(), 
              "BiWKV: decay and first must be [", k.size(2), "], not ", decay.sizes(), " and ", first.sizes());
  if (!serve({decay, first, k, v})) return bi_wkv_reference(decay, first, k, v);
  if (wants_gradient({decay, first, k, v})) return BiWkv::apply(decay, first, k, v);
  return run(per_step(decay, k), per_step(first, k), k.contiguous(), v.contiguous(), false)[0];
}

}  // namespace preceptor::models::kernels
