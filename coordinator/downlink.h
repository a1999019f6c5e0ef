#pragma once
#include <deque>
#include <optional>

#include "compression/update/downlink.h"
#include "transport/transfer.h"

namespace preceptor::coordinator {

/// The global model and how its versions reach the nodes. `full`: each version is a blob. `delta`: nodes hold a
/// shadow of the exact model; each round moves the shadow by the quantised difference, and what that lost is in the
/// next difference, since the exact model keeps it (error feedback, Tang 2019, arXiv:1905.05957). The shadow is the
/// model of record: it is what is trained from, measured and hashed. Pieces are content-addressed: the newest shadow
/// whole, for nodes that have none or too old a one, and the last deltas, so that a node that missed a round fetches
/// two. `sum`: patches are published sums, which lead from each version to the next without a loss.
/// Not thread-safe; owned by the coordinator.
class Downlink {
 public:
  static constexpr std::size_t kHistory = 4;  ///< patches kept

  /// delta: null for full and sum. It outlives this, as does the shelf that pieces are put on.
  Downlink(const compression::ModelDelta* delta, std::uint64_t seed, transport::BlobShelf& shelf, transport::Blob initial);

  const transport::Blob& model() const { return model_; }
  const Digest& digest() const { return digest_; }
  /// Oldest first; each leads from its base to the next one's, the last to model(). Shorter together than the model,
  /// but for a single sum.
  std::vector<transport::ModelPatch> patches() const { return {patches_.begin(), patches_.end()}; }

  /// The exact model, to be changed by a round; then publish() makes the next version of it.
  std::span<float> exact();
  /// sum: RoundSum::published, where the sites are to make the model from it.
  void publish(std::uint32_t round, std::optional<Bytes> sum = std::nullopt);

 private:
  void keep(std::uint32_t round, Bytes patch);
  void replace(transport::Blob model);
  void forget_old();

  const compression::ModelDelta* delta_;
  std::uint64_t seed_;
  transport::BlobShelf& shelf_;
  transport::Blob model_;
  Digest digest_{};
  Bytes exact_;  ///< float32, flat; without delta only between exact() and publish()
  std::deque<transport::ModelPatch> patches_;
};

}  // namespace preceptor::coordinator
