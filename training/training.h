#pragma once
#include <functional>

#include "models/flat_model.h"
#include "models/tap.h"
#include "training/batch.h"

namespace preceptor::training {

/// What a batch of logits, [B, classes] or [B, classes, S, S], is pulled towards. Returns a scalar [], in nats.
class Objective {
 public:
  virtual ~Objective() = default;
  virtual at::Tensor loss(const Batch& batch, const at::Tensor& logits) = 0;
  /// What `train` calls: the same for an objective that also looks at what the network tapped on the way.
  virtual at::Tensor loss_with(const Batch& batch, const at::Tensor& logits, const models::Features& /*features*/) {
    return loss(batch, logits);
  }
  /// After each of the model's steps, with its learning rate: an objective that has parameters of its own moves them here.
  virtual void step(double /*learning_rate*/) {}
  /// Whether it makes sense of a batch of one image and has no parameters of its own: private training asks for both, as it
  /// takes each image alone, and what such parameters learn gets no noise.
  virtual bool by_image() const { return true; }
};

/// Whether logits are [B, 2, classes]: those of a label head and a teacher head (models::Model).
inline bool two_headed(const at::Tensor& logits) { return logits.dim() == 3 && logits.size(1) == 2; }

/// Cross-entropy with label smoothing and class weights (balanced: N / (classes · count), on the given set).
std::unique_ptr<Objective> make_cross_entropy(const TrainingOptions& options, const data::Dataset& dataset);

/// The same of every pixel plus the soft Dice loss, 1 − mean Dice of the classes but the background, over the batch
/// (Isensee 2021, doi:10.1038/s41592-020-01008-z); balanced weights count pixels.
std::unique_ptr<Objective> make_dice_cross_entropy(const TrainingOptions& options, const data::Dataset& dataset);

/// The one of the two that the data ask for.
std::unique_ptr<Objective> make_supervised(const TrainingOptions& options, const data::Dataset& dataset);

/// Error: kInvalid when a network that classifies is given masks, or the reverse.
Result<void> check_task(const models::ModelOptions& model, const data::Dataset& dataset);

/// That network for these images. Error: kInvalid as of check_task.
Result<models::ModelSpec> spec_for(const models::ModelOptions& model, const data::Dataset& dataset);

/// Where in the whole job this call stands: the schedule's progress goes from `begin` to `end`, and
/// `first_epoch` counts the epochs that came before, so that augmentation goes on instead of starting anew.
struct Stretch {
  double begin = 0, end = 1;
  int first_epoch = 0;
};

struct Trained {
  double loss = 0;  ///< mean over the last epoch; 0 of private training, whose losses are not to leave the site
  std::size_t steps = 0;
};

/// Called after each epoch with its number and mean loss (of private training that of the images drawn, without noise: for
/// the site's own eyes); returns false to stop.
using EpochCallback = std::function<bool(int epoch, double loss)>;

/// What else acts on the steps of a training. Progress is the schedule's, 0 … 1 of the whole job.
class StepHook {
 public:
  virtual ~StepHook() = default;
  virtual void before_step(models::FlatModel& /*model*/, double /*progress*/) {}  ///< on gradients, after clipping
  virtual void after_step(models::FlatModel& /*model*/, double /*progress*/) {}   ///< on values; progress with this step done
};

/// The local loop: epochs of shuffled batches, on the model's device, with options.threads inside LibTorch.
/// All randomness comes from RandomStream(seed, …); same inputs, same floats, whatever else the process does; except where
/// options.record_privacy is on with randomness: system. With it on, private_training.h has what happens instead.
/// Errors: kInvalid when the set has fewer than two images, or when the loss is no longer finite.
Result<Trained> train(models::FlatModel& model, const data::Dataset& dataset, const TrainingOptions& options,
                      Objective& objective, std::uint64_t seed, const Stretch& stretch = {},
                      const EpochCallback& after_epoch = {}, StepHook* hook = nullptr);

/// A network as what it does: normalised images → logits.
using Network = std::function<at::Tensor(const at::Tensor& images)>;

/// Raw logits [N, classes, …] on the CPU, for one view of each image (augment as in training).
at::Tensor logits_of(const Network& network, const data::Dataset& dataset,
                     const AugmentOptions& augment, std::uint64_t seed, int view, int batch = 128);

/// Un-augmented batches in order, with their logits on the CPU.
void for_each_batch(const Network& network, const data::Dataset& dataset, int batch,
                    const std::function<void(std::span<const std::size_t> index, const at::Tensor& logits)>& visit);

/// Threads inside LibTorch for the calling thread's operators.
void use_threads(int threads);

}  // namespace preceptor::training
