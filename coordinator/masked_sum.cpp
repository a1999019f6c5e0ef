#include "coordinator/masked_sum.h"

#include "compression/update/ring_words.h"

namespace preceptor::coordinator {

void MaskedSum::begin(std::uint32_t round) {
  sum_.clear();
  mean_.clear();
  at_.round = round;
}

Result<void> MaskedSum::admit(const transport::UpdateOffer& offer, std::uint64_t) const {
  if (offer.samples != 0 || offer.train_loss != 0)
    return fail(Code::kRefused, "it states its images or its loss in the clear; under secure aggregation both are summed unseen");
  if (offer.update_bytes != codec_->size())
    return fail(Code::kRefused, "{} bytes; a masked update of this job has exactly {}", offer.update_bytes, codec_->size());
  return {};
}

Result<void> MaskedSum::fold(std::span<const std::byte> update, std::uint64_t, double) {
  if (sum_.nodes() >= max_nodes()) return fail(Code::kRefused, "the sum has room for {} nodes", max_nodes());
  if (update.size() != codec_->size() ||
      !compression::well_padded(update.first(codec_->packed_words()), codec_->words(), codec_->options().ring_bits))
    return fail(Code::kCorrupt, "broken bit field");
  sum_.add(update);
  return {};
}

std::size_t MaskedSum::max_nodes() const {
  return std::min<std::size_t>(std::size_t(codec_->options().max_nodes), privacy::kMaxMembers);
}

Result<void> MaskedSum::unmask(privacy::Aggregation& aggregation) {
  TRY(aggregation.unmask(0, 0, sum_.words()));
  if (codec_->totals() > 0) TRY(aggregation.unmask(1, 0, sum_.totals()));
  return {};
}

Result<std::optional<RoundSum::Told>> MaskedSum::close() {
  auto closed = TRY(sum_.close(at_));
  mean_ = std::move(closed.mean);
  return Told{closed.totals.mean_loss(), compression::pooled_auc(closed.totals.scores)};
}

void MaskedSum::apply(std::span<float> model, double rate) const {
  for (std::size_t i = 0; i < model.size(); ++i) model[i] = float(double(model[i]) + rate * double(mean_[i]));
}

}  // namespace preceptor::coordinator
