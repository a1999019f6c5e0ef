#pragma once
#include "training/training.h"

namespace preceptor::distill {

/// Networks that are trained beside a student, each pulled to the others' soft predictions, and dropped afterwards.
struct MutualOptions {
  std::vector<models::ModelOptions> peers;  ///< empty: the student learns without any
  double weight = 1;                        ///< of the mean pull by the others, beside each one's own loss
  double temperature = 1;
  template <class V>
  void visit(V& v) {
    v("peers", peers);
    v("weight", weight, Range{0, 1000});
    v("temperature", temperature, Range{0.01, 1000});
  }
};

/// The peers with first values, each from a stream of its own. Error: kInvalid with "mutual.peers[i]: " in front.
Result<std::vector<models::FlatModel>> make_peers(const MutualOptions& options, const data::Dataset& dataset,
                                                  const std::string& device, std::uint64_t seed);

/// Deep mutual learning (Zhang 2018, arXiv:1706.00384): own loss + weight · mean over the others of
/// T² · KL(softmax(other / T) ‖ softmax(student / T)). In the same step each peer is trained on the same batch, by the data's own
/// loss and the same pull; every prediction that pulls is detached, and is that from before the step, where the paper asks
/// again after each network's. Peers are trained by `training` as the student is. `peers` and `dataset` must outlive it.
std::unique_ptr<training::Objective> make_mutual(const MutualOptions& options, std::unique_ptr<training::Objective> own,
                                                 std::span<models::FlatModel> peers, const data::Dataset& dataset,
                                                 const training::TrainingOptions& training);

}  // namespace preceptor::distill
