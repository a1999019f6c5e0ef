#pragma once
#include <torch/nn.h>

#include <algorithm>

#include "models/adaptable.h"
#include "models/batch_norm.h"

namespace preceptor::models {

/// torch::nn::Sequential whose forward is no template, so that one may stand inside another.
class ChainImpl : public torch::nn::SequentialImpl {
 public:
  using SequentialImpl::SequentialImpl;
  torch::Tensor forward(torch::Tensor x) { return SequentialImpl::forward(x); }
};
TORCH_MODULE(Chain);

inline Conv2d conv(int in, int out, int kernel, int stride = 1, int groups = 1) {
  return Conv2d(
      torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).groups(groups).bias(false));
}
/// Every `stride`-th pixel of either direction, for a 1×1 convolution to follow: with a stride of its own and few channels
/// it writes past its buffer in channels_last (oneDNN 2.6, of LibTorch 1.13). A mean of one pixel is exact, and keeps
/// the memory format of values and gradient, which slicing does not.
inline torch::Tensor every(int stride, const torch::Tensor& x) { return stride == 1 ? x : torch::avg_pool2d(x, 1, stride); }
inline BatchNorm2d norm(int channels) { return BatchNorm2d(channels); }
inline torch::nn::ReLU relu() { return torch::nn::ReLU(torch::nn::ReLUOptions(true)); }
inline torch::nn::ReLU6 relu6() { return torch::nn::ReLU6(torch::nn::ReLU6Options(true)); }

/// Channels rounded to the nearest multiple of 8, never down by more than 10 % (MobileNet's rule).
inline int make_divisible(double channels) {
  const int rounded = std::max(8, int(channels + 4) / 8 * 8);
  return rounded < 0.9 * channels ? rounded + 8 : rounded;
}

/// x [B, C, H, W] in channels_last, copied if it was not. One channel is in both formats at once, and LibTorch would
/// go on in NCHW, which costs a light network a third of its speed; these strides say channels_last.
inline torch::Tensor channels_last(const torch::Tensor& x) {
  const auto y = x.contiguous(at::MemoryFormat::ChannelsLast);
  return y.size(1) == 1 ? y.squeeze(1).unsqueeze(-1).permute({0, 3, 1, 2}) : y;
}

/// Mean over height and width: [B, C, H, W] → [B, C].
inline torch::Tensor global_pool(const torch::Tensor& x) { return x.mean({2, 3}); }

}  // namespace preceptor::models
