#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "models/flat_model.h"
#include "models/graph.h"

/// Runs a frozen network on the CPU, faster than LibTorch does: weights packed once, activations and sums fused into the
/// layers before them, all tensors of a batch size in one arena, 8-bit layers in integers from grid to grid.
namespace preceptor::deploy {

/// Used by one thread at a time, and uses that thread alone. Move-only. Owns what it needs of the graph.
class Engine {
 public:
  /// A graph that models::freeze has been through, of any network of the zoo. Operators without a kernel here run through
  /// LibTorch. Error: kInvalid when the graph's image or logits are not float32 tensors that grow with the batch.
  static Result<Engine> create(models::Graph frozen);
  /// Fuses, traces and freezes the model's network, which is for inference only afterwards; its values are copied.
  static Result<Engine> create(models::FlatModel& model);
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  /// images: `batch` × [C, S, S], normalised, contiguous. Returns the logits [batch, …] until the next call.
  /// The first call of a batch size plans it. Throws std::logic_error when the sizes do not fit.
  std::span<const float> run(std::span<const float> images, std::int64_t batch);
  /// The same for tensors: [B, C, S, S] float32 → a copy of the logits.
  at::Tensor logits(const at::Tensor& images);

  struct Bytes {
    std::size_t weights;  ///< packed, as the kernels read them
    std::size_t arena;    ///< activations
  };
  Bytes bytes(std::int64_t batch = 1);

  /// What runs, a line a step; LibTorch's operators are named so.
  struct StepInfo {
    std::string text;
    bool fallback;  ///< runs through LibTorch
  };
  std::vector<StepInfo> steps(std::int64_t batch = 1);
  /// Median microseconds of each step over `repeats` runs of a batch of zeros. For finding out where time goes.
  std::vector<double> profile(std::int64_t batch = 1, int repeats = 20);

 private:
  struct Parts;
  explicit Engine(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace preceptor::deploy
