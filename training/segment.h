#pragma once
#include "training/training.h"

namespace preceptor::training {

/// Logits [classes, H, W] of one normalised image [C, H, W] of any size. One of tile × tile pixels goes through the
/// network whole; others in tiles of that side that overlap by half or more, blended by a Gaussian of deviation tile / 8
/// (Isensee 2021, doi:10.1038/s41592-020-01008-z), where the image is smaller than a tile with its edge repeated.
/// Memory: one tile's activations and two maps of the image's size.
at::Tensor segment(const Network& network, const at::Tensor& image, int tile);

/// The likeliest class of each pixel, row by row, from logits [classes, H, W].
std::vector<std::uint8_t> class_map(const at::Tensor& logits);

}  // namespace preceptor::training
