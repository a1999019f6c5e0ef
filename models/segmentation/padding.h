#pragma once
#include "models/layers.h"

namespace preceptor::models {

/// x [B, C, H, W] with its edges repeated, evenly on both sides, until height and width are multiples of `multiple`;
/// in its own memory format. An image that fits already is not copied.
inline torch::Tensor pad_to_multiple(torch::Tensor x, int multiple) {
  const auto missing = [&](int axis) { return (multiple - x.size(axis) % multiple) % multiple; };
  const bool planes = x.size(1) > 1 && x.is_contiguous();
  const auto rows = missing(2), columns = missing(3);
  if (rows != 0 || columns != 0)
    x = torch::replication_pad2d(x, {columns / 2, columns - columns / 2, rows / 2, rows - rows / 2});
  return planes ? x.contiguous() : channels_last(x);
}

/// The middle of x [B, C, H', W'], height × width: what pad_to_multiple added is gone. A view.
inline torch::Tensor crop_to(const torch::Tensor& x, std::int64_t height, std::int64_t width) {
  return x.narrow(2, (x.size(2) - height) / 2, height).narrow(3, (x.size(3) - width) / 2, width);
}

}  // namespace preceptor::models
