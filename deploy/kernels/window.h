#pragma once
#include <hwy/aligned_allocator.h>

#include <cstdint>
#include <span>

#include "deploy/kernels/epilogue.h"

/// Depthwise convolutions and pooling: windows over images whose channels lie together (NHWC).
namespace preceptor::deploy::kernels {

/// Where a window goes. Strides of the input are in elements; output rows are the pixels [B, out_height, out_width].
struct Window {
  std::int64_t batch, channels, height, width, out_height, out_width;
  std::int64_t kernel_height, kernel_width, stride_y, stride_x, padding_y, padding_x, dilation_y = 1, dilation_x = 1;
  std::int64_t batch_stride, row_stride, pixel_stride;
};

/// values: [kernel_height · kernel_width][channels up to a multiple of 16], bias: as many channels.
struct DepthwiseWeights {
  hwy::AlignedFreeUniquePtr<float[]> values, bias;
  std::size_t bytes = 0;
};
/// From LibTorch's [channels, 1, kernel_height, kernel_width]; an empty bias: zeros.
DepthwiseWeights pack_depthwise(const float* weight, std::int64_t channels, std::int64_t taps, std::span<const float> bias);

void depthwise(const Window& window, const DepthwiseWeights& weights, const float* images, const Epilogue& epilogue);

/// Only pixels inside the image count.
void max_pool(const Window& window, const float* images, const Epilogue& epilogue);
/// divisor 0: the number of pixels inside the image.
void average_pool(const Window& window, std::int64_t divisor, const float* images, const Epilogue& epilogue);

}  // namespace preceptor::deploy::kernels
