#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace preceptor::models::kernels {

/// Selective scan (Gu 2023, arXiv:2312.00752), over K visiting orders of the same tokens at once (VMamba,
/// arXiv:2401.10166). For each order k, with p = order[k, t] the token visited at step t and every row below that of p:
///   d = softplus(delta + delta_bias),  h ← exp(d·a) h + d·b·u,  y = c·h + skip·u,
/// summed over k at each token. Differentiable in every float argument.
///   u [B, L, D]; delta [K, B, L, D]; a [K, D, N], not positive; b, c [K, B, L, N]; skip, delta_bias [K, D];
///   order [K, L] int32, each row a permutation of 0 … L−1, on the CPU. Returns [B, L, D].
/// delta, b and c may be strided views with a contiguous last dimension. Throws c10::Error for other shapes.
/// A kernel of its own serves float32 on the CPU; other types and devices take the reference below.
at::Tensor selective_scan(const at::Tensor& u, const at::Tensor& delta, const at::Tensor& a, const at::Tensor& b,
                          const at::Tensor& c, const at::Tensor& skip, const at::Tensor& delta_bias, const at::Tensor& order);

/// Bidirectional WKV attention (Vision-RWKV, Duan 2024, arXiv:2403.02308): for each channel,
///   y_t = (Σ_{i≠t} e^{−(|t−i|−1) w + k_i} v_i + e^{u + k_t} v_t) / (the same without v),  w = decay/T, u = first/T,
/// in two passes that are stable for any keys, and as many for the gradients: linear in T both ways.
/// decay, first [C]; k, v [B, T, C]. Returns [B, T, C]. Types and devices as above.
at::Tensor bi_wkv(const at::Tensor& decay, const at::Tensor& first, const at::Tensor& k, const at::Tensor& v);

/// Group norm (Wu 2018, arXiv:1803.08494) of x [B, C, H, W]: each of `groups` equal groups of neighbouring channels of an
/// image has mean 0 and variance 1, then each channel is scaled by weight [C] and shifted by bias [C]. Two passes over
/// an image forward and two backward, in channels_last (LibTorch 1.13's own copies to NCHW and back). Types and devices
/// as above. Called as the operator "preceptor::group_norm", so that whoever records operators sees its arguments.
at::Tensor group_norm(const at::Tensor& x, std::int64_t groups, const at::Tensor& weight, const at::Tensor& bias, double eps);

/// What each image adds to the gradients of group_norm's weight and bias: [B, 2, C], from the gradient of its output.
at::Tensor group_norm_gradients(const at::Tensor& x, std::int64_t groups, double eps, const at::Tensor& grad);

/// What each image adds to the gradient of a depthwise convolution's weight [C, 1, k, k], k = 3, 5 or 7, from its input
/// [B, C, H, W] and the gradient of its output: [B, k, k, C]. Types and devices as above.
at::Tensor depthwise_gradients(const at::Tensor& x, const at::Tensor& grad, int kernel, int stride, int padding);

/// The same mathematics in plain LibTorch operators, by autograd: what the kernels are measured and tested against.
/// The scan keeps exp(d·a) and d·b·u, L·D·N values each; the attention keeps T·T·C weights.
at::Tensor selective_scan_reference(const at::Tensor& u, const at::Tensor& delta, const at::Tensor& a, const at::Tensor& b,
                                    const at::Tensor& c, const at::Tensor& skip, const at::Tensor& delta_bias,
                                    const at::Tensor& order);
at::Tensor bi_wkv_reference(const at::Tensor& decay, const at::Tensor& first, const at::Tensor& k, const at::Tensor& v);
at::Tensor group_norm_gradients_reference(const at::Tensor& x, std::int64_t groups, double eps, const at::Tensor& grad);
at::Tensor depthwise_gradients_reference(const at::Tensor& x, const at::Tensor& grad, int kernel, int stride, int padding);

/// While one is alive, this thread's calls of the functions above take the references (benchmarks, tests).
class UseReference {
 public:
  UseReference();
  ~UseReference();
  UseReference(const UseReference&) = delete;
  UseReference& operator=(const UseReference&) = delete;
  static bool active();  ///< does one live on this thread?
};

/// The instruction set that the kernels run with on this machine: "AVX3", "AVX2", … (Highway's names). Logged once.
std::string target();

}  // namespace preceptor::models::kernels
