#pragma once
#include "compression/update/ring_sum.h"
#include "coordinator/aggregate.h"
#include "privacy/secure_aggregation/aggregation.h"
#include "transport/messages.h"

namespace preceptor::coordinator {

/// What a round adds up, and how: one class a wire profile. A sum does not depend on the order of arrival.
/// Owned by the job, used by one round at a time, on one thread.
class RoundSum {
 public:
  virtual ~RoundSum() = default;
  /// Forgets the last round's.
  virtual void begin(std::uint32_t round) = 0;
  /// Before a byte is fetched. announced: training images of the site. Error: kRefused.
  virtual Result<void> admit(const transport::UpdateOffer& offer, std::uint64_t announced) const = 0;
  /// All of an update is in the sum afterwards, or none. Error: kRefused or kCorrupt.
  virtual Result<void> fold(std::span<const std::byte> update, std::uint64_t announced, double max_norm) = 0;
  /// Nodes that a sum has room for.
  virtual std::size_t max_nodes() const = 0;

  /// What the sum itself tells of the round; nothing, where the offers did.
  struct Told {
    double train_loss = 0;
    std::optional<double> pooled_auc;  ///< of the model that the round began with, on all validation splits together
    std::vector<compression::Fidelity> fidelity;  ///< mean over sites
  };
  /// Judges the whole sum; needs at least one update. Error: kRefused, then the round is void.
  virtual Result<std::optional<Told>> close() = 0;
  /// How updates are masked; null: they are not.
  struct Masking {
    privacy::SessionContext context;  ///< but for the round's own
    const privacy::Roster* roster;
    std::chrono::seconds step_deadline;
  };
  virtual const Masking* masking() const { return nullptr; }
  /// Takes the masks off, before close.
  virtual Result<void> unmask(privacy::Aggregation&) { return {}; }

  /// model[i] += rate · mean[i], after close.
  virtual void apply(std::span<float> model, double rate) const = 0;
  /// What the sites need to do the same (compression::SumStep), after close; nothing, where a sum is not for their eyes.
  virtual std::optional<Bytes> published() const { return std::nullopt; }
};

/// Decoded floats in fixed point, weighted by announced images. Offers carry weight and loss in the clear.
class PlainSum : public RoundSum {
 public:
  PlainSum(const compression::UpdateCodec& codec, std::size_t parameters) : codec_(&codec), sum_(parameters) {}
  void begin(std::uint32_t) override { sum_.clear(); }
  Result<void> admit(const transport::UpdateOffer& offer, std::uint64_t announced) const override;
  Result<void> fold(std::span<const std::byte> update, std::uint64_t announced, double max_norm) override;
  std::size_t max_nodes() const override { return std::size_t(-1); }
  Result<std::optional<Told>> close() override;
  void apply(std::span<float> model, double rate) const override { sum_.apply(model, rate); }
  std::uint64_t weight() const { return sum_.weight(); }  ///< training images in the sum

 private:
  const compression::UpdateCodec* codec_;
  Accumulator sum_;
};

/// The secure profile's: words modulo 2^r and totals. Offers say neither weight nor loss; every update has the
/// same number of bytes. Here no mask hides an update, so each is looked at before it is folded; with masks only
/// the whole sum can be (compression::RingSum::close).
class SecureSum : public RoundSum {
 public:
  SecureSum(const compression::RingCodec& codec, std::uint64_t seed) : codec_(&codec), sum_(codec), at_{seed, 0} {}
  void begin(std::uint32_t round) override;
  Result<void> admit(const transport::UpdateOffer& offer, std::uint64_t announced) const override;
  Result<void> fold(std::span<const std::byte> update, std::uint64_t announced, double max_norm) override;
  std::size_t max_nodes() const override { return std::size_t(codec_->options().max_nodes); }
  Result<std::optional<Told>> close() override;
  void apply(std::span<float> model, double rate) const override;
  std::optional<Bytes> published() const override;

 protected:
  const compression::RingCodec* codec_;
  compression::RingSum sum_;
  compression::RingRound at_;
  std::vector<float> mean_;  ///< once closed
};

}  // namespace preceptor::coordinator
