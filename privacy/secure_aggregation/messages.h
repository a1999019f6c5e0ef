#pragma once
#include <variant>

#include "privacy/secure_aggregation/context.h"
#include "privacy/secure_aggregation/secret.h"

/// The protocol's messages (Bonawitz 2017, doi:10.1145/3133956.3133982). Masked words do not travel in
/// one: they are the update's own bytes. Each is sealed into an envelope with the session's digest.
namespace preceptor::privacy {

/// coordinator → node: will you take part?
struct Invitation {
  SessionContext context;
};
/// node → coordinator, R0: two fresh public keys and a commitment to the seed of its own mask, signed.
struct Advertisement {
  Bytes cipher_key, mask_key;  ///< agreement_key_size(suite) each
  Digest commitment{};
  Bytes credential, signature;
};
/// coordinator → node: who advertised.
struct Roll {
  struct Entry {
    Member member = 0;
    Advertisement advertisement;
  };
  std::vector<Entry> entries;
};
/// R1, both ways: shares of seed and mask key, encrypted. Up: `peer` is whom it is for; down: whose it is.
struct Shares {
  struct Entry {
    Member peer = 0;
    Bytes sealed;  ///< kSealedShares
  };
  std::vector<Entry> entries;
};
inline constexpr std::size_t kSealedShares = 2 * 32 + 16;
/// coordinator → node, R3: whose masked words are in the sum, and whose are not though they shared.
struct Survivors {
  std::vector<Member> alive, dead;
};
/// node → coordinator, R3: signature over the survivors, and over whether the node made the model of this round
/// itself from what was published.
struct Confirmation {
  bool recomputed = false;
  Bytes signature;
};
/// coordinator → node, R4: who signed.
struct Confirmations {
  struct Entry {
    Member member = 0;
    Confirmation confirmation;
  };
  std::vector<Entry> entries;
};
/// node → coordinator, R4: for each peer the share of its seed (alive) or of its mask key (dead).
enum class ShareKind : std::uint8_t { kSeed = 1, kMaskKey = 2 };
struct Unmask {
  struct Entry {
    Member peer = 0;
    ShareKind kind = ShareKind::kSeed;
    Secret<32> share;
  };
  std::vector<Entry> entries;
};

using SecureMessage = std::variant<Invitation, Advertisement, Roll, Shares, Survivors, Confirmation, Confirmations, Unmask>;

const char* secure_message_name(const SecureMessage& message);

/// No message of kMaxMembers members is larger.
inline constexpr std::size_t kMaxSecureMessage = 1 << 20;

struct Envelope {
  Digest session{};
  SecureMessage message;
};
Bytes encode(const Digest& session, const SecureMessage& message);
/// Error: kCorrupt, "Roll: truncated: …". Sizes are checked against the bytes that are there and the
/// field's cap; what is left over is refused; each value has one form.
Result<Envelope> decode_envelope(std::span<const std::byte> bytes);

}  // namespace preceptor::privacy
