#include "coordinator/aggregate.h"

#include <algorithm>
#include <cmath>

namespace preceptor::coordinator {

Result<void> Accumulator::fold(const compression::UpdateCodec& codec, std::span<const std::byte> update, std::uint64_t weight, double max_norm) {
  if (weight == 0) return fail(Code::kRefused, "it stands for no training image");
  if (weight > kMaxWeight - weight_) return fail(Code::kRefused, "more than {} training images in one round", kMaxWeight);
  double square = 0;
  TRY(codec.decode(update, [&](std::size_t offset, std::span<const float> values) -> Result<void> {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) return fail(Code::kRefused, "its value {} is not finite", offset + i);
      if (std::abs(values[i]) > kMaxValue) return fail(Code::kRefused, "its value {} is above {}", offset + i, kMaxValue);
      square += double(values[i]) * values[i];
    }
    return {};
  }));
  sums_.resize(std::max(sums_.size(), codec.sum_size()));
  if (std::sqrt(square) > max_norm) return fail(Code::kRefused, "its norm {:.4g} is above {:.4g}", std::sqrt(square), max_norm);
  TRY(codec.decode(update, [&](std::size_t offset, std::span<const float> values) -> Result<void> {
    for (std::size_t i = 0; i < values.size(); ++i)
      sums_[offset + i] += std::int64_t(std::llrint(double(values[i]) * kScale)) * std::int64_t(weight);
    return {};
  }));
  weight_ += weight;
  return {};
}

Result<void> Accumulator::settle(const compression::UpdateCodec& codec) {
  if (codec.sum_size() == codec.model_size()) return {};
  std::vector<float> mean(sums_.size());
  for (std::size_t i = 0; i < mean.size(); ++i) mean[i] = float(double(sums_[i]) / (kScale * double(weight_)));
  TRY(codec.settle(mean, memory_));
  for (std::size_t i = 0; i < codec.model_size(); ++i) {
    if (!(std::abs(mean[i]) <= kMaxValue)) return fail(Code::kRefused, "the round's value {} is above {}", i, kMaxValue);
    sums_[i] = std::int64_t(std::llrint(double(mean[i]) * kScale)) * std::int64_t(weight_);
  }
  return {};
}

void Accumulator::apply(std::span<float> model, double rate) const {
  const double factor = rate / (kScale * double(weight_));
  for (std::size_t i = 0; i < model.size(); ++i) model[i] = float(double(model[i]) + factor * double(sums_[i]));
}

void Accumulator::clear() {
  std::ranges::fill(sums_, 0);
  weight_ = 0;
}

}  // namespace preceptor::coordinator
