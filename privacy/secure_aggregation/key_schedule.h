#pragma once
#include "privacy/secure_aggregation/messages.h"

/// What is hashed, signed and derived in a session: each statement and each key has its own domain,
/// so that none can stand for another.
namespace preceptor::privacy {

/// Hiding, since the seed is 256 uniform bits; lets the coordinator recognise a seed put together from shares.
Digest seed_commitment(const Digest& session, Member member, const Secret<32>& seed);

/// What an advertisement's signature covers.
Bytes advertisement_statement(const Digest& session, const std::string& name, const Advertisement& advertisement);
/// Of all advertised keys; `roll` ascending by member.
Digest transcript_of(const Digest& session, const Roll& roll);
/// Of the members whose shares were delivered, ascending: those whose masks cancel.
Digest group_of(const Digest& transcript, std::span<const Member> sharers);
/// What a confirmation's signature covers.
Bytes survivors_statement(const Digest& group, const Survivors& survivors, bool recomputed);

/// Key and associated data of the shares that `from` seals for `to`; a key seals one message.
Result<Secret<32>> share_key(const Secret<32>& agreed, const Digest& transcript, Member from, Member to);
Bytes share_binding(const Digest& session, Member from, Member to);

/// Mask of a pair, the same for both, for one vector; and of one member's own.
Result<Secret<32>> pair_mask_key(const Secret<32>& agreed, const Digest& group, Member a, Member b, const VectorSpec& v);
Result<Secret<32>> self_mask_key(const Secret<32>& seed, const Digest& group, Member member, const VectorSpec& v);

}  // namespace preceptor::privacy
