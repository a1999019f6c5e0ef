#include "privacy/secure_aggregation/key_schedule.h"
#include "privacy/secure_aggregation/party.h"

/// A party's state as bytes: what a node writes before a message leaves, and goes on from after a crash.
namespace preceptor::privacy {
namespace {

constexpr std::uint8_t kVersion = 2;

void put_long(ByteWriter& out, std::span<const std::byte> bytes) {
  out.put(std::uint32_t(bytes.size()));
  out.put(bytes);
}
Result<Bytes> get_long(ByteReader& in) {
  const auto size = TRY(in.get<std::uint32_t>());
  const auto bytes = TRY(in.take(size));
  return Bytes(bytes.begin(), bytes.end());
}
Result<Secret<32>> get_secret(ByteReader& in) { return Secret<32>::of(TRY(in.take(32))); }

template <class T>
Result<T> get_message(ByteReader& in) {
  const auto bytes = TRY(get_long(in));
  auto envelope = TRY(decode_envelope(bytes));
  auto* message = std::get_if<T>(&envelope.message);
  if (!message) return fail(Code::kCorrupt, "a stored message of another type");
  return std::move(*message);
}

}  // namespace

Bytes Party::store() const {
  Bytes bytes;
  bytes.reserve(4096 + advertisement_.size() * (roll_.entries.size() + 2) + 256 * context_.size());  // no stale copies
  ByteWriter out(bytes);
  out.put(kVersion);
  encode(out, context_);
  out.put(self_);
  for (const auto* secret : {&seed_, &cipher_secret_, &mask_secret_}) out.put(std::span<const std::byte>(secret->view()));
  put_long(out, advertisement_);
  put_long(out, encode(session_, roll_));
  out.put(std::uint8_t(held_.size()));
  for (const auto& [member, share] : held_) {
    out.put(member);
    out.put(std::span<const std::byte>(share.seed.view()));
    out.put(std::span<const std::byte>(share.mask_key.view()));
  }
  out.put(std::uint8_t(sharers_.size()));
  out.put(std::as_bytes(std::span(sharers_)));
  out.put(std::uint8_t(masked_));
  out.put(std::uint8_t(finished_));
  out.put(std::uint8_t(recomputed_));
  out.put(std::uint8_t(opened_));
  put_long(out, encode(session_, survivors_.value_or(Survivors{})));
  out.put(std::uint8_t(answers_.size()));
  for (const auto& [type, answer] : answers_) {
    out.put(type);
    out.put(std::span<const std::byte>(answer.question));
    put_long(out, answer.bytes);
  }
  return bytes;
}

Result<Party> Party::restore(std::span<const std::byte> bytes, const Signer& signer, const Roster& roster,
                             SpentUpdates& spent) {
  ByteReader in(bytes);
  if (const auto version = TRY(in.get<std::uint8_t>()); version != kVersion)
    return fail(Code::kCorrupt, "stored session of version {}", version);
  auto context = TRY(decode_context(in));
  if (auto checked = check(context); !checked) return std::unexpected(checked.error());
  const auto self = TRY(in.get<std::uint8_t>());
  if (!context.has(self)) return fail(Code::kCorrupt, "stored session of member {}", self);
  Party party(std::move(context), self, signer, roster, spent);
  party.seed_ = TRY(get_secret(in));
  party.cipher_secret_ = TRY(get_secret(in));
  party.mask_secret_ = TRY(get_secret(in));
  party.advertisement_ = TRY(get_long(in));
  party.roll_ = TRY(get_message<Roll>(in));
  const auto held = TRY(in.get<std::uint8_t>());
  for (int i = 0; i < held; ++i) {
    const auto member = TRY(in.get<std::uint8_t>());
    auto seed = TRY(get_secret(in));
    party.held_[member] = {std::move(seed), TRY(get_secret(in))};
  }
  const auto sharer_count = TRY(in.get<std::uint8_t>());
  const auto sharers = TRY(in.take(sharer_count));
  for (const auto member : sharers) party.sharers_.push_back(std::to_integer<Member>(member));
  party.masked_ = TRY(in.get<std::uint8_t>()) != 0;
  party.finished_ = TRY(in.get<std::uint8_t>()) != 0;
  party.recomputed_ = TRY(in.get<std::uint8_t>()) != 0;
  party.opened_ = TRY(in.get<std::uint8_t>()) != 0;
  if (auto survivors = TRY(get_message<Survivors>(in)); !survivors.alive.empty()) party.survivors_ = std::move(survivors);
  const auto answers = TRY(in.get<std::uint8_t>());
  for (int i = 0; i < answers; ++i) {
    const auto type = TRY(in.get<std::uint8_t>());
    const auto question = TRY(get_digest(in));
    party.answers_[type] = {question, TRY(get_long(in))};
  }
  if (in.left() > 0) return fail(Code::kCorrupt, "stored session: {} bytes too many", in.left());
  if (!party.roll_.entries.empty()) party.transcript_ = transcript_of(party.session_, party.roll_);
  if (!party.sharers_.empty()) party.group_ = group_of(party.transcript_, party.sharers_);
  return party;
}

}  // namespace preceptor::privacy
