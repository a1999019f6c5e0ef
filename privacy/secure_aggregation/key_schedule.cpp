#include "privacy/secure_aggregation/key_schedule.h"

#include <algorithm>

#include "privacy/secure_aggregation/kdf.h"

namespace preceptor::privacy {
namespace {

/// Domain, then fields of fixed width or with their length.
struct Statement {
  Bytes bytes;
  ByteWriter out{bytes};
  explicit Statement(std::string_view domain) { put_name(out, domain); }
};

void put_key(ByteWriter& out, std::span<const std::byte> key) {
  out.put(std::uint16_t(key.size()));
  out.put(key);
}

void put_vector(ByteWriter& out, const VectorSpec& v) {
  put_name(out, v.name);
  out.put(std::uint8_t(v.bits));
}

}  // namespace

Digest seed_commitment(const Digest& session, Member member, const Secret<32>& seed) {
  Sha256 hash;
  hash.update("fl/sa/1/seed").update(session).update(std::as_bytes(std::span(&member, 1))).update(seed.view());
  return hash.finish();
}

Bytes advertisement_statement(const Digest& session, const std::string& name, const Advertisement& a) {
  Statement s("fl/sa/1/advertise");
  s.out.put(std::span<const std::byte>(session));
  put_name(s.out, name);
  put_key(s.out, a.cipher_key);
  put_key(s.out, a.mask_key);
  s.out.put(std::span<const std::byte>(a.commitment));
  return s.bytes;
}

Digest transcript_of(const Digest& session, const Roll& roll) {
  Statement s("fl/sa/1/transcript");
  s.out.put(std::span<const std::byte>(session));
  for (const auto& [member, a] : roll.entries) {
    s.out.put(member);
    put_key(s.out, a.cipher_key);
    put_key(s.out, a.mask_key);
    s.out.put(std::span<const std::byte>(a.commitment));
  }
  return sha256(s.bytes);
}

Digest group_of(const Digest& transcript, std::span<const Member> sharers) {
  Statement s("fl/sa/1/group");
  s.out.put(std::span<const std::byte>(transcript));
  s.out.put(std::as_bytes(sharers));
  return sha256(s.bytes);
}

Bytes survivors_statement(const Digest& group, const Survivors& survivors, bool recomputed) {
  Statement s("fl/sa/2/survivors");
  s.out.put(std::uint8_t(recomputed));
  s.out.put(std::span<const std::byte>(group));
  for (const auto* list : {&survivors.alive, &survivors.dead}) {
    s.out.put(std::uint8_t(list->size()));
    s.out.put(std::as_bytes(std::span(*list)));
  }
  return s.bytes;
}

Result<Secret<32>> share_key(const Secret<32>& agreed, const Digest& transcript, Member from, Member to) {
  Statement info("fl/sa/1/share");
  info.out.put(from);
  info.out.put(to);
  return derive_key(agreed.view(), transcript, info.bytes);
}

Bytes share_binding(const Digest& session, Member from, Member to) {
  Statement s("fl/sa/1/share");
  s.out.put(std::span<const std::byte>(session));
  s.out.put(from);
  s.out.put(to);
  return s.bytes;
}

Result<Secret<32>> pair_mask_key(const Secret<32>& agreed, const Digest& group, Member a, Member b, const VectorSpec& v) {
  Statement info("fl/sa/1/mask");
  info.out.put(std::min(a, b));
  info.out.put(std::max(a, b));
  put_vector(info.out, v);
  return derive_key(agreed.view(), group, info.bytes);
}

Result<Secret<32>> self_mask_key(const Secret<32>& seed, const Digest& group, Member member, const VectorSpec& v) {
  Statement info("fl/sa/1/self");
  info.out.put(member);
  put_vector(info.out, v);
  return derive_key(seed.view(), group, info.bytes);
}

}  // namespace preceptor::privacy
