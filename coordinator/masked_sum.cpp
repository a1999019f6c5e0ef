#include "coordinator/masked_sum.h"

#include "compression/update/ring_words.h"

namespace preceptor::coordinator {

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

}  // namespace preceptor::coordinator
