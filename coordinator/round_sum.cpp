#include "coordinator/round_sum.h"

namespace preceptor::coordinator {

using transport::UpdateOffer;

Result<void> PlainSum::admit(const UpdateOffer& offer, std::uint64_t announced) const {
  if (offer.samples != announced)
    return fail(Code::kRefused, "it stands for {} training images, but the site announced {}", offer.samples, announced);
  if (offer.update_bytes == 0 || offer.update_bytes > codec_->size_bound())
    return fail(Code::kRefused, "{} bytes; an update of this job has 1 to {}", offer.update_bytes, codec_->size_bound());
  return {};
}

Result<void> PlainSum::fold(std::span<const std::byte> update, std::uint64_t announced, double max_norm) {
  return sum_.fold(*codec_, update, announced, max_norm);
}

Result<std::optional<RoundSum::Told>> PlainSum::close() {
  TRY(sum_.settle(*codec_));
  return std::nullopt;
}

void SecureSum::begin(std::uint32_t round) {
  sum_.clear();
  mean_.clear();
  at_.round = round;
}

Result<void> SecureSum::admit(const UpdateOffer& offer, std::uint64_t) const {
  if (offer.samples != 0 || offer.train_loss != 0 || !offer.fidelity.empty())
    return fail(Code::kRefused, "it states its images, loss or fidelity in the clear; in the secure profile they are summed unseen");
  if (offer.update_bytes != codec_->size())
    return fail(Code::kRefused, "{} bytes; an update of this job has exactly {}", offer.update_bytes, codec_->size());
  return {};
}

Result<void> SecureSum::fold(std::span<const std::byte> update, std::uint64_t, double) {
  if (sum_.nodes() >= max_nodes()) return fail(Code::kRefused, "the sum has room for {} nodes", max_nodes());
  TRY(compression::check_unmasked(*codec_, update));
  sum_.add(update);
  return {};
}

Result<std::optional<RoundSum::Told>> SecureSum::close() {
  auto closed = TRY(sum_.close(at_));
  mean_ = std::move(closed.mean);
  Told told{closed.totals.mean_loss(), compression::pooled_auc(closed.totals.scores), {}};
  const auto names = codec_->stages();
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& sum = closed.totals.fidelity[i];
    told.fidelity.push_back({names[i], sum.cosine / double(sum_.nodes()), sum.norm_ratio / double(sum_.nodes())});
  }
  return told;
}

void SecureSum::apply(std::span<float> model, double rate) const {
  compression::move_by_mean(model, mean_, rate);
}

std::optional<Bytes> SecureSum::published() const { return sum_.publish().value(); }

}  // namespace preceptor::coordinator
