#include "training/segment.h"

#include <torch/torch.h>

namespace preceptor::training {
namespace {

/// Where tiles begin along a side of `length` ≥ tile: evenly spread, at most half a tile apart.
std::vector<std::int64_t> starts(std::int64_t length, std::int64_t tile) {
  const std::int64_t room = length - tile, step = std::max<std::int64_t>(tile / 2, 1), count = (room + step - 1) / step;
  std::vector<std::int64_t> at{0};
  for (std::int64_t i = 1; i <= count; ++i) at.push_back(room * i / count);
  return at;
}

/// exp(−d² / 2σ²) from the centre, [tile, tile]; never 0, so that every pixel has a weight.
at::Tensor gaussian(int tile) {
  const auto d = (torch::arange(tile, torch::kFloat32) - (tile - 1) / 2.0) / (tile / 8.0);
  const auto row = (-0.5 * d * d).exp();
  return torch::outer(row, row).clamp_min(1e-4);
}

}  // namespace

at::Tensor segment(const Network& network, const at::Tensor& image, int tile) {
  torch::NoGradGuard no_grad;
  const auto height = image.size(1), width = image.size(2);
  const auto run = [&](const at::Tensor& piece) { return network(piece.unsqueeze(0)).to(torch::kCPU)[0]; };
  if (height == tile && width == tile) return run(image);
  const auto down = std::max<std::int64_t>(tile - height, 0), right = std::max<std::int64_t>(tile - width, 0);
  namespace F = torch::nn::functional;
  const auto padded = F::pad(image.unsqueeze(0), F::PadFuncOptions({0, right, 0, down}).mode(torch::kReplicate))[0];
  const auto weight = gaussian(tile);
  at::Tensor sum, weights = torch::zeros({padded.size(1), padded.size(2)});
  for (const auto y : starts(padded.size(1), tile)) {
    for (const auto x : starts(padded.size(2), tile)) {
      const auto part = [&](const at::Tensor& map) { return map.narrow(-2, y, tile).narrow(-1, x, tile); };
      const auto logits = run(part(padded));
      if (!sum.defined()) sum = torch::zeros({logits.size(0), padded.size(1), padded.size(2)});
      part(sum).add_(logits * weight);
      part(weights).add_(weight);
    }
  }
  return (sum / weights).narrow(1, 0, height).narrow(2, 0, width);
}

std::vector<std::uint8_t> class_map(const at::Tensor& logits) {
  const auto classes = (logits.size(0) == 1 ? logits[0] > 0 : logits.argmax(0)).to(torch::kUInt8).contiguous();
  const auto* begin = classes.data_ptr<std::uint8_t>();
  return {begin, begin + classes.numel()};
}

}  // namespace preceptor::training
