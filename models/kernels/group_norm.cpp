#include <ATen/Parallel.h>
#include <torch/torch.h>

#include "models/kernels/dispatch.h"
#include "models/kernels/group_norm_simd.h"
#include "models/kernels/kernels.h"

namespace preceptor::models::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

GroupNorm shape(const torch::Tensor& x, std::int64_t groups, double eps) { return {x.size(2) * x.size(3), x.size(1), groups, eps}; }

/// [B, C, H, W] whose memory is [B, H, W, C], whatever its strides say of sides of one.
torch::Tensor dense(const torch::Tensor& x) { return x.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2}); }

void for_images(std::int64_t images, const std::function<void(std::int64_t)>& work) {
  at::parallel_for(0, images, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto b = begin; b < end; ++b) work(b);
  });
}

/// y [B, C, H, W], means and 1 / deviations [B, groups].
tensor_list run(const torch::Tensor& x, std::int64_t groups, const torch::Tensor& weight, const torch::Tensor& bias, double eps) {
  const auto norm = shape(x, groups, eps);
  const tensor_list results{torch::empty({x.size(0), x.size(2), x.size(3), x.size(1)}, x.options()).permute({0, 3, 1, 2}),
                            torch::empty({x.size(0), groups}, x.options()), torch::empty({x.size(0), groups}, x.options())};
  const float *from = x.data_ptr<float>(), *w = weight.data_ptr<float>(), *b = bias.data_ptr<float>();
  float *y = results[0].data_ptr<float>(), *mean = results[1].data_ptr<float>(), *inverse = results[2].data_ptr<float>();
  for_images(x.size(0), [&](std::int64_t i) {
    group_norm_forward(norm, from + i * norm.floats(), w, b, y + i * norm.floats(), mean + i * groups, inverse + i * groups);
  });
  return results;
}

struct GroupNormFunction : torch::autograd::Function<GroupNormFunction> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& images, std::int64_t groups, const torch::Tensor& weight,
                               const torch::Tensor& bias, double eps) {
    const auto x = dense(images);
    const auto results = run(x, groups, weight, bias, eps);
    context->save_for_backward({x, weight, results[1], results[2]});
    context->saved_data["groups"] = groups;
    return results[0];
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& grads) {
    TORCH_CHECK(!torch::GradMode::is_enabled(), "group norm: no second derivative");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &mean = saved[2], &inverse = saved[3];
    const auto groups = context->saved_data["groups"].toInt(), channels = x.size(1);
    const auto norm = shape(x, groups, 0);
    const auto grad = dense(grads[0]), to_x = torch::empty_like(x), to_weight = torch::empty({x.size(0), channels}, x.options()),
               to_bias = torch::empty_like(to_weight);
    const float *from = x.data_ptr<float>(), *w = weight.data_ptr<float>(), *m = mean.data_ptr<float>(), *r = inverse.data_ptr<float>(),
                *dy = grad.data_ptr<float>();
    float *dx = to_x.data_ptr<float>(), *dw = to_weight.data_ptr<float>(), *db = to_bias.data_ptr<float>();
    for_images(x.size(0), [&](std::int64_t i) {
      group_norm_backward(norm, from + i * norm.floats(), w, m + i * groups, r + i * groups, dy + i * norm.floats(),
                          dx + i * norm.floats(), dw + i * channels, db + i * channels);
    });
    return {to_x, {}, to_weight.sum(0), to_bias.sum(0), {}};
  }
};

}  // namespace

at::Tensor group_norm_now(const at::Tensor& x, std::int64_t groups, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  TORCH_CHECK(x.dim() == 4 && x.numel() > 0 && groups > 0 && x.size(1) % groups == 0, "group norm: ", x.sizes(), " in ", groups, " groups");
  TORCH_CHECK(weight.dim() == 1 && weight.size(0) == x.size(1) && bias.sizes() == weight.sizes(), "group norm: weight and bias must be [",
              x.size(1), "], not ", weight.sizes(), " and ", bias.sizes());
  if (!serve({x, weight, bias})) return torch::group_norm(x, groups, weight, bias, eps);
  if (wants_gradient({x, weight, bias})) return GroupNormFunction::apply(x, groups, weight, bias, eps);
  return run(dense(x), groups, weight.contiguous(), bias.contiguous(), eps)[0];
}

at::Tensor group_norm_gradients(const at::Tensor& images, std::int64_t groups, double eps, const at::Tensor& grads) {
  if (!serve({images, grads})) return group_norm_gradients_reference(images, groups, eps, grads);
  const auto x = dense(images), grad = dense(grads);
  const auto norm = shape(x, groups, eps);
  const auto result = torch::empty({x.size(0), 2, norm.channels}, x.options());
  const float *from = x.data_ptr<float>(), *dy = grad.data_ptr<float>();
  float* out = result.data_ptr<float>();
  for_images(x.size(0), [&](std::int64_t i) {
    std::vector<float> mean(std::size_t(groups), 0.0f), inverse(mean);
    group_norm_statistics(norm, from + i * norm.floats(), mean.data(), inverse.data());
    float* own = out + i * 2 * norm.channels;
    group_norm_backward(norm, from + i * norm.floats(), nullptr, mean.data(), inverse.data(), dy + i * norm.floats(), nullptr, own,
                        own + norm.channels);
  });
  return result;
}

at::Tensor group_norm_gradients_reference(const at::Tensor& x, std::int64_t groups, double eps, const at::Tensor& grad) {
  const auto normal = torch::group_norm(x, groups, {}, {}, eps);
  return torch::stack({(grad * normal).sum({2, 3}), grad.sum({2, 3})}, 1);
}

at::Tensor depthwise_gradients(const at::Tensor& images, const at::Tensor& grads, int kernel, int stride, int padding) {
  TORCH_CHECK(kernel == 3 || kernel == 5 || kernel == 7, "depthwise gradients: kernels of 3, 5 and 7, not ", kernel);
  if (!serve({images, grads})) return depthwise_gradients_reference(images, grads, kernel, stride, padding);
  const auto x = dense(images), grad = dense(grads);
  const Depthwise conv{x.size(2), x.size(3), x.size(1), grad.size(2), grad.size(3), kernel, stride, padding};
  TORCH_CHECK(conv.out_height == (conv.height + 2 * padding - kernel) / stride + 1 && grad.size(1) == conv.channels && grad.size(0) == x.size(0),
              "depthwise gradients: ", x.sizes(), " and ", grad.sizes(), " do not fit");
  const auto result = torch::empty({x.size(0), kernel, kernel, conv.channels}, x.options());
  const float *from = x.data_ptr<float>(), *dy = grad.data_ptr<float>();
  float* out = result.data_ptr<float>();
  const auto in_image = conv.height * conv.width * conv.channels, in_grad = conv.out_height * conv.out_width * conv.channels;
  for_images(x.size(0), [&](std::int64_t i) {
    depthwise_gradient(conv, from + i * in_image, dy + i * in_grad, out + i * kernel * kernel * conv.channels);
  });
  return result;
}

at::Tensor depthwise_gradients_reference(const at::Tensor& x, const at::Tensor& grad, int kernel, int stride, int padding) {
  const auto taps = torch::im2col(x, {kernel, kernel}, {1, 1}, {padding, padding}, {stride, stride})
                        .view({x.size(0), x.size(1), kernel * kernel, -1});
  const auto sums = (taps * grad.reshape({x.size(0), x.size(1), 1, -1})).sum(3);
  return sums.view({x.size(0), x.size(1), kernel, kernel}).permute({0, 2, 3, 1}).contiguous();
}

}  // namespace preceptor::models::kernels
