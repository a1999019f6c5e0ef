#include "common/parameter_space.h"

#include <algorithm>
#include <stdexcept>

namespace preceptor {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kWeight:
      return "weight";
    case Role::kBias:
      return "bias";
    case Role::kNormScale:
      return "norm-scale";
    case Role::kNormBias:
      return "norm-bias";
    case Role::kNormMean:
      return "norm-mean";
    case Role::kNormVariance:
      return "norm-variance";
    case Role::kFrozen:
      return "frozen";
  }
  return "?";
}

void ParameterSpace::add(std::string name, std::vector<std::int64_t> shape, Role role) {
  std::size_t size = 1;
  for (const auto extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(size, std::size_t(extent), &size))
      throw std::logic_error("ParameterSpace: impossible shape of " + name);
  }
  pieces_.push_back({std::move(name), std::move(shape), role, size_, size});
  size_ += size;
}

std::size_t ParameterSpace::trainable() const {
  std::size_t count = 0;
  for (const auto& piece : pieces_)
    if (!is_statistic(piece.role) && !is_frozen(piece.role)) count += piece.size;
  return count;
}

Digest ParameterSpace::architecture_hash() const {
  Sha256 hash;
  for (const auto& piece : pieces_) {
    hash.update(piece.name).update(":").update(role_name(piece.role));
    for (const auto extent : piece.shape) hash.update(fmt::format(",{}", extent));
    hash.update("\n");
  }
  return hash.finish();
}

FlatBuffer::FlatBuffer(std::size_t floats)
    : data_(static_cast<float*>(::operator new[](std::max<std::size_t>(floats, 1) * sizeof(float),
                                                 std::align_val_t{64}))),
      size_(floats) {
  std::fill_n(data_.get(), floats, 0.0f);
}

FlatBuffer FlatBuffer::clone() const {
  FlatBuffer copy(size_);
  std::ranges::copy(span(), copy.data());
  return copy;
}

void repair_variances(const ParameterSpace& space, std::span<float> parameters) {
  for (const auto& piece : space.pieces()) {
    if (piece.role != Role::kNormVariance) continue;
    for (auto& value : parameters.subspan(piece.offset, piece.size)) value = std::max(value, 0.0f);
  }
}

std::string model_hash(std::span<const float> parameters) {
  return hex(sha256(std::as_bytes(parameters)));
}

}  // namespace preceptor
