#include "privacy/secure_aggregation/party.h"

#include <algorithm>
#include <set>

#include "privacy/secure_aggregation/aead.h"
#include "privacy/secure_aggregation/key_schedule.h"
#include "privacy/secure_aggregation/shamir.h"

namespace preceptor::privacy {

Digest session_name(const SessionContext& context) {
  Bytes bytes;
  ByteWriter out(bytes);
  put_name(out, "fl/sa/1/session");
  put_name(out, context.job);
  out.put(context.round);
  out.put(context.attempt);
  return sha256(bytes);
}

Party::Party(SessionContext context, Member self, const Signer& signer, const Roster& roster, SpentUpdates& spent)
    : context_(std::move(context)), session_(context_.digest()), self_(self), signer_(&signer), roster_(&roster),
      spent_(&spent) {}

Result<Party> Party::create(const SessionContext& context, const Policy& policy, std::string_view name,
                            const Signer& signer, const Roster& roster, SpentUpdates& spent) {
  if (auto checked = check(context, policy); !checked) return std::unexpected(checked.error());
  if (context.roster != roster.digest())
    return fail(Code::kRefused, "another roster than the one that this node pinned");
  const auto self = context.member(name);
  if (self == 0) return fail(Code::kRefused, "'{}' is not a member of this session", name);
  if (auto fresh = spent.open(session_name(context)); !fresh) return std::unexpected(fresh.error());

  Party party(context, self, signer, roster, spent);
  auto cipher_key = TRY(AgreementKey::generate(context.suite));
  auto mask_key = TRY(AgreementKey::generate(context.suite));
  party.seed_ = TRY(Secret<32>::random());
  party.cipher_secret_ = cipher_key.secret().copy();
  party.mask_secret_ = mask_key.secret().copy();
  Advertisement a{cipher_key.public_key(), mask_key.public_key(), seed_commitment(party.session_, self, party.seed_),
                  signer.credential(), {}};
  a.signature = TRY(signer.sign(advertisement_statement(party.session_, context.name(self), a)));
  party.advertisement_ = encode(party.session_, std::move(a));
  return party;
}

Result<Bytes> Party::hear(std::span<const std::byte> bytes) {
  if (finished_) return fail(Code::kRefused, "this session is over");
  auto envelope = TRY(decode_envelope(bytes));
  if (envelope.session != session_)
    return fail(Code::kRefused, "{} of another context", secure_message_name(envelope.message));
  const auto type = std::uint8_t(envelope.message.index());
  const auto question = sha256(bytes);
  if (const auto given = answers_.find(type); given != answers_.end()) {
    if (given->second.question == question) return given->second.bytes;
    return fail(Code::kRefused, "equivocation: a second, different {}", secure_message_name(envelope.message));
  }
  auto bytes_out = TRY(std::visit([&](const auto& message) { return answer(message); }, envelope.message));
  answers_[type] = {question, bytes_out};
  return bytes_out;
}

template <class Other>
Result<Bytes> Party::answer(const Other&) {
  return fail(Code::kRefused, "a message that only nodes send");
}

const Advertisement& Party::of(Member member) const {
  return std::ranges::find(roll_.entries, member, &Roll::Entry::member)->advertisement;
}

Result<void> Party::check_roll(const Roll& roll) const {
  const auto mine = TRY(decode_envelope(advertisement_));
  const auto& own = std::get<Advertisement>(mine.message);
  std::set<Bytes> keys;
  Member last = 0;
  bool self_listed = false;
  for (const auto& [member, a] : roll.entries) {
    if (!context_.has(member)) return fail(Code::kRefused, "the roll lists an unknown member {}", member);
    const auto& name = context_.name(member);
    if (member <= last) return fail(Code::kRefused, "the roll lists {} twice or out of order", name);
    last = member;
    if (auto signed_by = roster_->verify(name, a.credential, advertisement_statement(session_, name, a), a.signature);
        !signed_by)
      return in("the roll", signed_by.error());
    for (const auto* key : {&a.cipher_key, &a.mask_key}) {
      if (key->size() != agreement_key_size(context_.suite))
        return fail(Code::kRefused, "{}: a key of {} bytes", name, key->size());
      if (!keys.insert(*key).second) return fail(Code::kRefused, "{}: a key that is listed twice", name);
    }
    if (member == self_) {
      self_listed = true;
      if (a.cipher_key != own.cipher_key || a.mask_key != own.mask_key || a.commitment != own.commitment)
        return fail(Code::kRefused, "the roll changed this node's own key");
    }
  }
  if (!self_listed) return fail(Code::kRefused, "the roll leaves this node's own key out");
  if (int(roll.entries.size()) < fewest())
    return fail(Code::kRefused, "{} members advertised; {} are needed (k_min {}, threshold {})", roll.entries.size(),
                fewest(), context_.k_min, context_.threshold);
  return {};
}

Result<Bytes> Party::answer(const Roll& roll) {
  if (auto checked = check_roll(roll); !checked) return std::unexpected(checked.error());
  const auto transcript = transcript_of(session_, roll);
  const auto mine = TRY(AgreementKey::of(context_.suite, cipher_secret_.copy()));
  // x of a share is the holder's place in the context, so shares for absent members are simply not sent.
  auto seeds = TRY(share_secret(seed_, context_.threshold, int(context_.size())));
  auto keys = TRY(share_secret(mask_secret_, context_.threshold, int(context_.size())));
  Shares shares;
  for (const auto& [member, advertisement] : roll.entries) {
    auto& seed = seeds[member - 1u].y;
    auto& key = keys[member - 1u].y;
    if (member == self_) {
      held_[self_] = {std::move(seed), std::move(key)};
      continue;
    }
    auto agreed = mine.agree(advertisement.cipher_key);
    if (!agreed) return in(context_.name(member), agreed.error());
    Bytes plain(seed.view().begin(), seed.view().end());
    plain.reserve(64);
    plain.insert(plain.end(), key.view().begin(), key.view().end());
    const WipeLater wipe(plain);
    auto sealed = seal(context_.suite, TRY(share_key(*agreed, transcript, self_, member)), plain,
                       share_binding(session_, self_, member));
    if (!sealed) return std::unexpected(sealed.error());
    shares.entries.push_back({member, std::move(*sealed)});
  }
  roll_ = roll;
  transcript_ = transcript;
  return encode(session_, std::move(shares));
}

Result<Bytes> Party::answer(const Shares& shares) {
  if (roll_.entries.empty()) return fail(Code::kRefused, "shares before the roll");
  const auto mine = TRY(AgreementKey::of(context_.suite, cipher_secret_.copy()));
  std::map<Member, Held> received;
  for (const auto& [from, sealed] : shares.entries) {
    if (from == self_ || std::ranges::find(roll_.entries, from, &Roll::Entry::member) == roll_.entries.end())
      return fail(Code::kRefused, "shares of member {}, who is not on the roll", from);
    const auto& name = context_.name(from);
    if (received.contains(from)) return fail(Code::kRefused, "shares of {} twice", name);
    const auto agreed = TRY(mine.agree(of(from).cipher_key));
    const auto key = TRY(share_key(agreed, transcript_, from, self_));
    auto plain = open(context_.suite, key, sealed, share_binding(session_, from, self_));
    if (!plain) return in("shares of " + name, plain.error());
    const WipeLater wipe(*plain);
    if (plain->size() != 64) return fail(Code::kRefused, "shares of {}: {} bytes", name, plain->size());
    const auto bytes = std::span<const std::byte>(*plain);
    received[from] = {Secret<32>::of(bytes.first(32)), Secret<32>::of(bytes.last(32))};
  }
  if (int(received.size()) + 1 < fewest())
    return fail(Code::kRefused, "{} members shared; {} are needed", received.size() + 1, fewest());
  held_.merge(received);
  for (const auto& [member, share] : held_) sharers_.push_back(member);
  group_ = group_of(transcript_, sharers_);
  return Bytes{};
}

Result<std::vector<MaskSet>> Party::masks() const {
  const auto mine = TRY(AgreementKey::of(context_.suite, mask_secret_.copy()));
  std::vector<MaskSet> sets(context_.vectors.size());
  for (std::size_t v = 0; v < sets.size(); ++v) {
    const auto key = TRY(self_mask_key(seed_, group_, self_, context_.vectors[v]));
    if (auto added = sets[v].add(context_.suite, key, false); !added) return std::unexpected(added.error());
  }
  for (const auto peer : sharers_) {
    if (peer == self_) continue;
    const auto agreed = TRY(mine.agree(of(peer).mask_key));
    for (std::size_t v = 0; v < sets.size(); ++v) {
      const auto key = TRY(pair_mask_key(agreed, group_, self_, peer, context_.vectors[v]));
      if (auto added = sets[v].add(context_.suite, key, self_ < peer); !added) return std::unexpected(added.error());
    }
  }
  return sets;
}

Result<void> Party::mask(std::span<const Words> vectors, bool recomputed) {
  if (masked_) return fail(Code::kRefused, "an update is spent once masked: this session has masked its own");
  if (sharers_.empty() || finished_) return fail(Code::kInvalid, "nothing to mask with: shares have not arrived");
  if (vectors.size() != context_.vectors.size())
    return fail(Code::kInvalid, "{} vectors; the session sums {}", vectors.size(), context_.vectors.size());
  Sha256 hash;
  for (std::size_t v = 0; v < vectors.size(); ++v) {
    const auto& spec = context_.vectors[v];
    const bool wide = std::holds_alternative<std::span<std::uint64_t>>(vectors[v]);
    const auto size = std::visit([](auto words) { return words.size(); }, vectors[v]);
    if (wide != (spec.bits == 64) || size != spec.words)
      return fail(Code::kInvalid, "vector '{}': {} words of {} bits; the session sums {} of {}", spec.name, size,
                  wide ? 64 : 32, spec.words, spec.bits);
    std::visit([&](auto words) { hash.update(std::as_bytes(words)); }, vectors[v]);
  }
  auto sets = TRY(masks());
  if (auto spent = spent_->spend(hash.finish(), session_); !spent) return spent;
  masked_ = true;
  recomputed_ = recomputed;
  for (std::size_t v = 0; v < vectors.size(); ++v)
    if (auto folded = sets[v].fold(0, vectors[v], context_.vectors[v].bits); !folded) return folded;
  return {};
}

Result<void> Party::check_survivors(const Survivors& survivors) const {
  std::set<Member> seen;
  for (const auto* list : {&survivors.alive, &survivors.dead})
    for (const auto member : *list) {
      if (!context_.has(member)) return fail(Code::kRefused, "survivors: unknown member {}", member);
      const auto& name = context_.name(member);
      if (!std::ranges::binary_search(sharers_, member))
        return fail(Code::kRefused, "survivors: {} was dead already", name);
      if (!seen.insert(member).second)
        return fail(Code::kRefused, "survivors: {} twice; both kinds of share are never given", name);
    }
  if (!std::ranges::is_sorted(survivors.alive) || !std::ranges::is_sorted(survivors.dead))
    return fail(Code::kRefused, "survivors: out of order");
  if (std::ranges::find(survivors.dead, self_) != survivors.dead.end())
    return fail(Code::kRefused, "survivors: this node is listed as dead");
  if (seen.size() != sharers_.size()) return fail(Code::kRefused, "survivors: {} of {} members", seen.size(), sharers_.size());
  if (int(survivors.alive.size()) < fewest())
    return fail(Code::kRefused, "{} survivors; {} are needed (k_min {}, threshold {})", survivors.alive.size(), fewest(),
                context_.k_min, context_.threshold);
  return {};
}

Result<Bytes> Party::answer(const Survivors& survivors) {
  if (!masked_) return fail(Code::kRefused, "survivors before this node's masked words");
  if (auto checked = check_survivors(survivors); !checked) return std::unexpected(checked.error());
  auto signature = TRY(signer_->sign(survivors_statement(group_, survivors, recomputed_)));
  survivors_ = survivors;
  return encode(session_, Confirmation{recomputed_, std::move(signature)});
}

Result<void> Party::check_confirmations(const Confirmations& confirmations) const {
  std::set<Member> confirmed;
  int vouchers = 0;
  for (const auto& [member, confirmation] : confirmations.entries) {
    if (std::ranges::find(survivors_->alive, member) == survivors_->alive.end())
      return fail(Code::kRefused, "confirmation of member {}, who is no survivor", member);
    const auto& name = context_.name(member);
    if (!confirmed.insert(member).second) return fail(Code::kRefused, "confirmation of {} twice", name);
    const auto statement = survivors_statement(group_, *survivors_, confirmation.recomputed);
    if (auto good = roster_->verify(name, of(member).credential, statement, confirmation.signature); !good)
      return in("confirmation", good.error());
    vouchers += confirmation.recomputed && member != self_;
  }
  if (int(confirmed.size()) < context_.threshold)
    return fail(Code::kRefused, "{} confirmed the survivors; {} are needed", confirmed.size(), context_.threshold);
  if (context_.recomputed && !recomputed_ && vouchers <= context_.colluders)
    return fail(Code::kRefused, "this node could not make the model itself, and {} others did; more than {} are needed", vouchers,
                context_.colluders);
  return {};
}

Result<Bytes> Party::answer(const Confirmations& confirmations) {
  if (!survivors_) return fail(Code::kRefused, "confirmations before survivors");
  TRY(check_confirmations(confirmations));
  Unmask unmask;
  for (const auto member : survivors_->alive)
    unmask.entries.push_back({member, ShareKind::kSeed, held_.at(member).seed.copy()});
  for (const auto member : survivors_->dead)
    unmask.entries.push_back({member, ShareKind::kMaskKey, held_.at(member).mask_key.copy()});
  auto bytes = encode(session_, std::move(unmask));
  opened_ = true;
  wipe_keys();
  return bytes;
}

void Party::wipe_keys() {
  seed_.wipe();
  cipher_secret_.wipe();
  mask_secret_.wipe();
  held_.clear();
}

void Party::finish() {
  wipe_keys();
  for (auto& [type, answer] : answers_) OPENSSL_cleanse(answer.bytes.data(), answer.bytes.size());
  answers_.clear();
  finished_ = true;
}

}  // namespace preceptor::privacy
