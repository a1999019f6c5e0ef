#include <algorithm>

#include "privacy/secure_aggregation/aggregation.h"
#include "privacy/secure_aggregation/key_schedule.h"

namespace preceptor::privacy {
namespace {
constexpr std::uint8_t kVersion = 1;
}

Bytes Aggregation::store() const {
  Bytes bytes;
  ByteWriter out(bytes);
  out.put(kVersion);
  encode(out, context_);
  out.put(std::uint8_t(phase_));
  for (const auto& [member, seat] : seats_) {
    out.put(std::uint8_t(seat.joined));
    for (const auto& heard : seat.heard) {
      out.put(std::uint32_t(heard.size()));
      out.put(std::span<const std::byte>(heard));
    }
  }
  return bytes;
}

/// Everything else follows from the messages: phases are closed again over the same ones.
Result<Aggregation> Aggregation::restore(std::span<const std::byte> bytes, const Roster& roster) {
  ByteReader in(bytes);
  if (const auto version = TRY(in.get<std::uint8_t>()); version != kVersion)
    return fail(Code::kCorrupt, "stored aggregation of version {}", version);
  auto context = TRY(decode_context(in));
  auto aggregation = TRY(create(context, roster));
  const auto phase = TRY(in.get<std::uint8_t>());
  if (phase < std::uint8_t(Phase::kRoll) || phase > std::uint8_t(Phase::kOpen))
    return fail(Code::kCorrupt, "stored aggregation in phase {}", phase);
  for (auto& [member, seat] : aggregation.seats_) {
    seat.joined = TRY(in.get<std::uint8_t>()) != 0;
    std::size_t type = 1;  // Advertisement, Shares, Confirmation, Unmask: every second of SecureMessage
    for (auto& heard : seat.heard) {
      const auto size = TRY(in.get<std::uint32_t>());
      const auto envelope = TRY(in.take(size));
      if (size > 0) {
        const auto known = TRY(decode_envelope(envelope));
        if (known.message.index() != type)
          return fail(Code::kCorrupt, "stored aggregation: {} in another's place", secure_message_name(known.message));
      }
      heard.assign(envelope.begin(), envelope.end());
      type += 2;
    }
  }
  if (in.left() > 0) return fail(Code::kCorrupt, "stored aggregation: {} bytes too many", in.left());
  using Close = Result<Posts> (Aggregation::*)();
  constexpr Close kCloses[] = {&Aggregation::close_roll, &Aggregation::close_shares, &Aggregation::close_survivors,
                               &Aggregation::close_confirmations};
  for (const auto close : kCloses) {
    if (std::uint8_t(aggregation.phase_) >= phase) break;
    if (auto closed = (aggregation.*close)(); !closed) return std::unexpected(closed.error());
  }
  if (phase == std::uint8_t(Phase::kOpen))
    if (auto closed = aggregation.close_unmask(); !closed) return std::unexpected(closed.error());
  return aggregation;
}

}  // namespace preceptor::privacy
