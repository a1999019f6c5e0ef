#pragma once
#include <functional>

#include "models/flat_model.h"
#include "training/batch.h"

namespace preceptor::training {

/// What a batch of logits [B, classes] is pulled towards. Returns a scalar [], in nats.
class Objective {
 public:
  virtual ~Objective() = default;
  virtual at::Tensor loss(const Batch& batch, const at::Tensor& logits) = 0;
};

/// Whether logits are [B, 2, classes]: those of a label head and a teacher head (models::Model).
inline bool two_headed(const at::Tensor& logits) { return logits.dim() == 3 && logits.size(1) == 2; }

/// Cross-entropy with label smoothing and class weights (balanced: N / (classes · count), on the given set).
std::unique_ptr<Objective> make_cross_entropy(const TrainingOptions& options, const data::Dataset& dataset);

/// Where in the whole job this call stands: the schedule's progress goes from `begin` to `end`, and
/// `first_epoch` counts the epochs that came before, so that augmentation goes on instead of starting anew.
struct Stretch {
  double begin = 0, end = 1;
  int first_epoch = 0;
};

struct Trained {
  double loss = 0;  ///< mean over the last epoch
  std::size_t steps = 0;
};

/// Called after each epoch with its number and mean loss; returns false to stop.
using EpochCallback = std::function<bool(int epoch, double loss)>;

/// The local loop: epochs of shuffled batches, on the model's device, with options.threads inside LibTorch.
/// All randomness comes from RandomStream(seed, …); same inputs, same floats, whatever else the process does.
/// Errors: kInvalid when the set has fewer than two images, or when the loss is no longer finite.
Result<Trained> train(models::FlatModel& model, const data::Dataset& dataset, const TrainingOptions& options,
                      Objective& objective, std::uint64_t seed, const Stretch& stretch = {},
                      const EpochCallback& after_epoch = {});

/// Softmax probabilities, row-major [N, classes], for an un-augmented set.
std::vector<float> predict(models::FlatModel& model, const data::Dataset& dataset, int batch = 128);

/// Raw logits [N, classes] on the CPU, for one view of each image (augment as in training).
at::Tensor logits_of(const std::function<at::Tensor(const at::Tensor&)>& network, const data::Dataset& dataset,
                     const AugmentOptions& augment, std::uint64_t seed, int view, int batch = 128);

/// Threads inside LibTorch for the calling thread's operators.
void use_threads(int threads);

}  // namespace preceptor::training
