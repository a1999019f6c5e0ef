#pragma once
#include <string>
#include <vector>

#include "common/hash.h"
#include "common/bytes.h"
#include "privacy/secure_aggregation/suite.h"

namespace preceptor::privacy {

/// A member of a session: its place in SessionContext::members, from 1. It is also the x of its shares.
using Member = std::uint8_t;
inline constexpr std::size_t kMaxMembers = 255;
inline constexpr int kSmallestCohort = 3;  ///< of two members each learns the other's input

/// A vector that is summed: u32 words modulo 2^bits, bits ≤ 32, or u64 words modulo 2^64.
struct VectorSpec {
  std::string name;
  std::uint64_t words = 0;
  int bits = 32;  ///< 1..32, or 64
  bool operator==(const VectorSpec&) const = default;
};

/// Everything that members of a session must agree on before a share leaves. Its digest is signed by
/// each and goes into each key: members who were shown different contexts, models or cohorts get
/// masks that do not cancel, so that their sum is noise.
struct SessionContext {
  std::string job;
  std::uint32_t round = 0, attempt = 0;
  Digest model{}, architecture{};
  Digest roster{};     ///< Roster::digest() of the pinned identities
  Digest plan{};       ///< of all that the members were asked to do, with what turns an update into words
  int k_min = 5;       ///< fewer survivors: no sum
  int colluders = 0;   ///< f: members whom the coordinator may have on its side
  int threshold = 0;   ///< t of the shares: threshold_of(members, colluders)
  /// Members make the model themselves from published sums. Who cannot (new, or away for long) opens nothing unless
  /// more than `colluders` others sign that they did.
  bool recomputed = false;
  Suite suite = Suite::kX25519ChaCha20;
  std::vector<VectorSpec> vectors;
  std::vector<std::string> members;  ///< sorted, distinct

  std::size_t size() const { return members.size(); }
  Digest digest() const;
  const std::string& name(Member member) const { return members.at(member - 1u); }
  /// 0 for a stranger.
  Member member(std::string_view name) const;
  bool has(Member member) const { return member >= 1 && member <= members.size(); }
};

/// floor((n + f) / 2) + 1: honest members give one kind of share each and f give both, so a lying
/// coordinator gets at most n + f < 2t shares of a member's two secrets, and never opens both.
inline int threshold_of(int members, int colluders) { return (members + colluders) / 2 + 1; }

/// What a node insists on, from its own options, whatever the coordinator asks.
struct Policy {
  int k_min = 5;
  int colluders = 0;  ///< smallest f that it accepts
};

/// Error: kRefused, with the rule: cohort too small, threshold not the rule's, members unsorted or
/// twice, unknown suite, no vector or one out of range.
Result<void> check(const SessionContext& context);
/// As check, and against the node's own rules.
Result<void> check(const SessionContext& context, const Policy& policy);

/// One form a value. Error: kCorrupt.
void encode(ByteWriter& out, const SessionContext& context);
Result<SessionContext> decode_context(ByteReader& in);

/// u8 length and bytes.
void put_name(ByteWriter& out, std::string_view name);
Result<std::string> get_name(ByteReader& in);
Result<Digest> get_digest(ByteReader& in);

}  // namespace preceptor::privacy
