#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace preceptor::models::kernels {

/// May the kernels take these? All float32 on the CPU, and no UseReference alive. Logs the instruction set the first time.
bool serve(at::TensorList tensors);

/// Is this thread's network being traced? Then a kernel is called by its operator's name, "preceptor::bi_wkv".
bool tracing();
at::Tensor call(const char* name, at::TensorList inputs);

/// What the operator "preceptor::group_norm" does.
at::Tensor group_norm_now(const at::Tensor& x, std::int64_t groups, const at::Tensor& weight, const at::Tensor& bias, double eps);

/// Does autograd ask for a derivative of one of these?
bool wants_gradient(at::TensorList tensors);

/// work(b, first, last) over all samples and channels, the latter divided at multiples of kPad, by the threads of LibTorch.
using Work = std::function<void(std::int64_t b, std::int64_t first, std::int64_t last)>;
void for_channels(std::int64_t batch, std::int64_t channels, const Work& work);

/// x with zeros behind its last dimension, up to a multiple of kPad; contiguous.
at::Tensor pad(const at::Tensor& x);

}  // namespace preceptor::models::kernels
