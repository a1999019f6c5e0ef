#include "privacy/secure_aggregation/messages.h"

#include <algorithm>

#include "privacy/secure_aggregation/identity.h"

namespace preceptor::privacy {
namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kMaxKey = 65;
constexpr const char* kNames[] = {"Invitation", "Advertisement", "Roll", "Shares",
                                  "Survivors", "Confirmation", "Confirmations", "Unmask"};
static_assert(std::size(kNames) == std::variant_size_v<SecureMessage>);

void put_blob(ByteWriter& out, std::span<const std::byte> bytes, std::size_t max) {
  if (bytes.size() > max) throw std::logic_error("a field over its cap");
  out.put(std::uint16_t(bytes.size()));
  out.put(bytes);
}
Result<Bytes> get_blob(ByteReader& in, std::size_t max) {
  const std::size_t size = TRY(in.get<std::uint16_t>());
  if (size > max) return fail(Code::kCorrupt, "a field of {} bytes; at most {}", size, max);
  const auto bytes = TRY(in.take(size));
  return Bytes(bytes.begin(), bytes.end());
}

void put(ByteWriter& out, const Invitation& m) { encode(out, m.context); }
void put(ByteWriter& out, const Advertisement& m) {
  put_blob(out, m.cipher_key, kMaxKey);
  put_blob(out, m.mask_key, kMaxKey);
  out.put(std::span<const std::byte>(m.commitment));
  put_blob(out, m.credential, kMaxCredential);
  put_blob(out, m.signature, kMaxSignature);
}
void put(ByteWriter& out, const Confirmation& m) {
  out.put(std::uint8_t(m.recomputed));
  put_blob(out, m.signature, kMaxSignature);
}
void put(ByteWriter& out, const Roll::Entry& e) {
  out.put(e.member);
  put(out, e.advertisement);
}
void put(ByteWriter& out, const Shares::Entry& e) {
  if (e.sealed.size() != kSealedShares) throw std::logic_error("sealed shares of another size");
  out.put(e.peer);
  out.put(std::span<const std::byte>(e.sealed));
}
void put(ByteWriter& out, const Confirmations::Entry& e) {
  out.put(e.member);
  put(out, e.confirmation);
}
void put(ByteWriter& out, const Unmask::Entry& e) {
  out.put(e.peer);
  out.put(std::uint8_t(e.kind));
  out.put(std::span<const std::byte>(e.share.view()));
}
template <class List>
requires requires(const List& l) { l.entries; }
void put(ByteWriter& out, const List& m) {
  out.put(std::uint8_t(m.entries.size()));
  for (const auto& entry : m.entries) put(out, entry);
}
void put(ByteWriter& out, const Survivors& m) {
  for (const auto* list : {&m.alive, &m.dead}) {
    out.put(std::uint8_t(list->size()));
    out.put(std::as_bytes(std::span(*list)));
  }
}

Result<void> get(ByteReader& in, Invitation& m) {
  m.context = TRY(decode_context(in));
  return {};
}
Result<void> get(ByteReader& in, Advertisement& m) {
  m.cipher_key = TRY(get_blob(in, kMaxKey));
  m.mask_key = TRY(get_blob(in, kMaxKey));
  m.commitment = TRY(get_digest(in));
  m.credential = TRY(get_blob(in, kMaxCredential));
  m.signature = TRY(get_blob(in, kMaxSignature));
  return {};
}
Result<void> get(ByteReader& in, Confirmation& m) {
  const auto recomputed = TRY(in.get<std::uint8_t>());
  if (recomputed > 1) return fail(Code::kCorrupt, "{} is no truth value", recomputed);
  m.recomputed = recomputed == 1;
  m.signature = TRY(get_blob(in, kMaxSignature));
  return {};
}
Result<void> get(ByteReader& in, Roll::Entry& e) {
  e.member = TRY(in.get<std::uint8_t>());
  return get(in, e.advertisement);
}
Result<void> get(ByteReader& in, Shares::Entry& e) {
  e.peer = TRY(in.get<std::uint8_t>());
  const auto sealed = TRY(in.take(kSealedShares));
  e.sealed.assign(sealed.begin(), sealed.end());
  return {};
}
Result<void> get(ByteReader& in, Confirmations::Entry& e) {
  e.member = TRY(in.get<std::uint8_t>());
  return get(in, e.confirmation);
}
Result<void> get(ByteReader& in, Unmask::Entry& e) {
  e.peer = TRY(in.get<std::uint8_t>());
  const auto kind = TRY(in.get<std::uint8_t>());
  if (kind != 1 && kind != 2) return fail(Code::kCorrupt, "a share of unknown kind {}", kind);
  e.kind = ShareKind(kind);
  e.share = Secret<32>::of(TRY(in.take(32)));
  return {};
}
template <class List>
requires requires(const List& l) { l.entries; }
Result<void> get(ByteReader& in, List& m) {
  const auto count = TRY(in.get<std::uint8_t>());
  for (int i = 0; i < count; ++i)
    if (auto read = get(in, m.entries.emplace_back()); !read) return read;
  return {};
}
Result<void> get(ByteReader& in, Survivors& m) {
  for (auto* list : {&m.alive, &m.dead}) {
    const auto count = TRY(in.get<std::uint8_t>());
    const auto bytes = TRY(in.take(count));
    list->resize(count);
    std::ranges::transform(bytes, list->begin(), [](std::byte b) { return std::to_integer<Member>(b); });
  }
  return {};
}

using Read = Result<SecureMessage> (*)(ByteReader&);
template <class T>
Result<SecureMessage> read_body(ByteReader& in) {
  T body;
  if (auto read = get(in, body); !read) return std::unexpected(read.error());
  if (in.left() > 0) return fail(Code::kCorrupt, "{} bytes too many", in.left());
  return body;
}
template <class... T>
constexpr std::array<Read, sizeof...(T)> readers(const std::variant<T...>*) {
  return {&read_body<T>...};
}
constexpr auto kReaders = readers(static_cast<const SecureMessage*>(nullptr));

}  // namespace

const char* secure_message_name(const SecureMessage& message) { return kNames[message.index()]; }

Bytes encode(const Digest& session, const SecureMessage& message) {
  Bytes bytes;
  ByteWriter out(bytes);
  out.put(kVersion);
  out.put(std::uint8_t(message.index() + 1));
  out.put(std::span<const std::byte>(session));
  std::visit([&](const auto& body) { put(out, body); }, message);
  return bytes;
}

Result<Envelope> decode_envelope(std::span<const std::byte> bytes) {
  if (bytes.size() > kMaxSecureMessage)
    return fail(Code::kCorrupt, "{} bytes; at most {}", bytes.size(), kMaxSecureMessage);
  ByteReader in(bytes);
  const auto version = TRY(in.get<std::uint8_t>());
  const auto type = TRY(in.get<std::uint8_t>());
  if (version != kVersion) return fail(Code::kCorrupt, "secure aggregation of version {}", version);
  if (type < 1 || type > kReaders.size()) return fail(Code::kCorrupt, "message of unknown type {}", type);
  Envelope envelope;
  envelope.session = TRY(get_digest(in));
  auto message = kReaders[type - 1u](in);
  if (!message) return preceptor::in(kNames[type - 1u], message.error());
  envelope.message = std::move(*message);
  return envelope;
}

}  // namespace preceptor::privacy
