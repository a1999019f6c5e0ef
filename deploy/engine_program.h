#pragma once
#include <hwy/aligned_allocator.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "deploy/kernels/int8.h"

/// A network's operators without LibTorch's types: what the engine fuses and plans. Made from models::Graph, which has the
/// names of operators and attributes.
namespace preceptor::deploy {

using Dims = std::vector<std::int64_t>;

/// Floats that never change, with room behind them for whole vectors.
struct Constant {
  hwy::AlignedFreeUniquePtr<float[]> data;
  std::size_t size = 0;
};

struct Value {
  Dims sizes;                 ///< at batch 1
  std::vector<bool> batched;  ///< by dimension
  std::shared_ptr<const Constant> constant;  ///< null: computed, or no floats
  bool grid = false;          ///< 8-bit steps, not floats
  bool channels_fastest = false;  ///< a grid that convolutions take; linear layers want the last dimension fastest
  bool elsewhere = false;     ///< a constant of another type, which only LibTorch's operators take

  Dims at(std::int64_t batch) const {
    Dims all = sizes;
    for (std::size_t i = 0; i < all.size(); ++i)
      if (batched[i]) all[i] *= batch;
    return all;
  }
};

struct Operator {
  std::string name;
  std::vector<int> inputs;   ///< −1: none
  std::vector<int> outputs;  ///< of a convolution or linear layer, −1 where only the grid is wanted
  std::map<std::string, std::vector<double>, std::less<>> attributes;
  int node = -1;             ///< of models::Graph, for LibTorch to run

  // Of convolutions and linear layers: what was fused into them, and their weights.
  kernels::Activation before = kernels::Activation::kNone, after = kernels::Activation::kNone;
  double slope = 0;
  int residual = -1;
  int grid = -1;  ///< the value that gets the result in 8-bit steps
  float grid_scale = 1;
  std::int32_t grid_zero = 0;
  std::int32_t int8_zero = 0;  ///< of the input of a layer of integers
  std::vector<std::shared_ptr<const kernels::PackedMatrix>> matrices;  ///< one a group
  std::vector<std::shared_ptr<const kernels::Int8Matrix>> int8_matrices;
  std::shared_ptr<const kernels::DepthwiseWeights> depthwise;
  std::shared_ptr<const kernels::Int8Depthwise> int8_depthwise;

  bool has(std::string_view key) const { return attributes.contains(key); }
  const std::vector<double>& list(std::string_view key) const { return attributes.find(key)->second; }
  double number(std::string_view key) const { return list(key).at(0); }
  std::int64_t integer(std::string_view key) const { return std::int64_t(number(key)); }
};

struct Program {
  std::vector<Value> values;
  std::vector<Operator> operators;
  int image = 0, logits = 0;
  std::size_t weight_bytes = 0;  ///< of packed weights

  std::vector<std::vector<int>> consumers() const;  ///< operators by value
};

/// Two-dimensional by LibTorch's rule: one number stands for both.
inline std::array<std::int64_t, 2> pair(const std::vector<double>& list) { return {std::int64_t(list.front()), std::int64_t(list.back())}; }

/// Activations, sums and rounding to a grid go into the layer before; layers whose input and weights lie on grids become
/// layers of integers.
void fuse(Program& program);
/// Packs the weights of every layer that the engine's kernels can take; after fuse().
void pack_weights(Program& program);

}  // namespace preceptor::deploy
