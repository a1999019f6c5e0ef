#pragma once
#include <functional>

#include "deploy/engine_layout.h"

/// A program for one batch size: every step with its pointers, all tensors in one arena.
namespace preceptor::deploy {

/// A tensor that one of LibTorch's operators takes or gives. data null: a constant of the graph's own, or none.
struct TensorRef {
  float* data = nullptr;
  Dims sizes, strides;
};
/// Makes the call that runs node `node` of the traced graph on these tensors.
using Fallback = std::function<std::function<void()>(int node, std::int64_t batch, std::vector<TensorRef> inputs, std::vector<TensorRef> outputs)>;

struct Step {
  std::string text;  ///< "convolution 3x3 24→48 relu, int8"
  bool fallback = false;
  std::function<void()> run;
};

struct Plan {
  std::vector<Step> steps;
  hwy::AlignedFreeUniquePtr<std::byte[]> arena;
  std::size_t arena_bytes = 0;
  float* image = nullptr;         ///< where the images are put, [B, C, S, S] contiguous
  std::int64_t image_elements = 0;
  const float* logits = nullptr;  ///< contiguous
  std::int64_t logits_elements = 0;
};

/// Lifetimes are those of the steps: tensors whose lifetimes do not overlap share memory. The program must outlive the plan.
Plan make_plan(const Program& program, std::int64_t batch, const Fallback& fallback);

}  // namespace preceptor::deploy
