#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "common/hash.h"
#include "common/result.h"

namespace preceptor {

/// What a piece of the model is for; selections (shared, frozen, lossless) are made by role.
enum class Role : std::uint8_t { kWeight, kBias, kNormScale, kNormBias, kNormMean, kNormVariance, kFrozen };
/// Running means and variances of normalisation: measured, not trained by gradient.
inline bool is_statistic(Role role) { return role == Role::kNormMean || role == Role::kNormVariance; }
/// Parameters that neither train nor travel: what LoRA stands beside.
inline bool is_frozen(Role role) { return role == Role::kFrozen; }
std::string_view role_name(Role role);

/// One named tensor inside the flat buffer.
struct Piece {
  std::string name;                 ///< "features.0.weight"
  std::vector<std::int64_t> shape;  ///< row-major; [] is a scalar
  Role role = Role::kWeight;
  std::size_t offset = 0;  ///< in floats, from the start of the buffer
  std::size_t size = 0;    ///< in floats
};

/// Names every float of a model: pieces lie one after the other, without gaps, in the order added.
/// A value: copied with the model's description, compared by hash.
class ParameterSpace {
 public:
  void add(std::string name, std::vector<std::int64_t> shape, Role role);
  const std::vector<Piece>& pieces() const { return pieces_; }
  std::size_t size() const { return size_; }  ///< floats in the buffer
  /// Floats that training changes by gradient, i.e. all but normalisation statistics and what is frozen.
  std::size_t trainable() const;
  /// SHA-256 over names, shapes and roles: two models may exchange updates iff it is equal.
  Digest architecture_hash() const;

 private:
  std::vector<Piece> pieces_;
  std::size_t size_ = 0;
};

/// float32 storage aligned to 64 bytes, zero at first. Move-only: a model is large.
class FlatBuffer {
 public:
  FlatBuffer() = default;
  explicit FlatBuffer(std::size_t floats);
  std::span<float> span() { return {data_.get(), size_}; }
  std::span<const float> span() const { return {data_.get(), size_}; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  FlatBuffer clone() const;

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<float[], Free> data_;
  std::size_t size_ = 0;
};

/// Raises normalisation variances that are below zero to zero: the mean of lossily coded updates can leave one
/// there, and its square root would make every output of the model NaN.
void repair_variances(const ParameterSpace& space, std::span<float> parameters);

/// SHA-256 of the floats' bytes: the model hash that runs are compared by.
std::string model_hash(std::span<const float> parameters);

}  // namespace preceptor
