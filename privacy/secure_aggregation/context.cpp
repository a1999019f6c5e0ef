#include "privacy/secure_aggregation/context.h"

#include <algorithm>

#include "privacy/secure_aggregation/mask_stream.h"

namespace preceptor::privacy {
namespace {

constexpr std::size_t kMaxVectors = 16;
constexpr std::uint8_t kVersion = 2;  ///< 2: plan, recomputed

}  // namespace

Digest SessionContext::digest() const {
  Bytes bytes;
  ByteWriter writer(bytes);
  writer.put(bytes_of("fl/sa/1/context"));
  encode(writer, *this);
  return sha256(bytes);
}

Member SessionContext::member(std::string_view name) const {
  const auto found = std::ranges::lower_bound(members, name);
  return found != members.end() && *found == name ? Member(found - members.begin() + 1) : 0;
}

Result<void> check(const SessionContext& context) {
  const auto n = int(context.members.size());
  if (n > int(kMaxMembers)) return fail(Code::kRefused, "{} members; at most {}", n, kMaxMembers);
  if (context.k_min < kSmallestCohort)
    return fail(Code::kRefused, "k_min = {}; the protocol allows no less than {}", context.k_min, kSmallestCohort);
  if (n < context.k_min) return fail(Code::kRefused, "{} members, fewer than k_min = {}", n, context.k_min);
  if (context.colluders < 0 || context.threshold != threshold_of(n, context.colluders) || context.threshold > n)
    return fail(Code::kRefused, "threshold {} of {} members; with {} colluders it must be {}", context.threshold, n,
                context.colluders, threshold_of(n, context.colluders));
  if (!is_suite(std::uint8_t(context.suite))) return fail(Code::kRefused, "unknown suite {}", int(context.suite));
  for (std::size_t i = 1; i < context.members.size(); ++i)
    if (context.members[i - 1] >= context.members[i])
      return fail(Code::kRefused, "members are not sorted and distinct at '{}'", context.members[i]);
  if (context.vectors.empty()) return fail(Code::kRefused, "nothing to sum");
  for (std::size_t i = 0; i < context.vectors.size(); ++i) {
    const auto& v = context.vectors[i];
    if ((v.bits < 1 || v.bits > 32) && v.bits != 64)
      return fail(Code::kRefused, "vector '{}': a ring of {} bits; 1..32 or 64", v.name, v.bits);
    if (v.words == 0 || v.words > MaskStream::kMaxBytes / 8)
      return fail(Code::kRefused, "vector '{}' of {} words", v.name, v.words);
    for (std::size_t j = 0; j < i; ++j)
      if (context.vectors[j].name == v.name) return fail(Code::kRefused, "two vectors named '{}'", v.name);
  }
  return {};
}

Result<void> check(const SessionContext& context, const Policy& policy) {
  if (auto checked = check(context); !checked) return checked;
  if (context.k_min < policy.k_min)
    return fail(Code::kRefused, "k_min = {}, below this node's floor of {}", context.k_min, policy.k_min);
  if (context.colluders < policy.colluders)
    return fail(Code::kRefused, "{} colluders are provided for; this node wants {}", context.colluders,
                policy.colluders);
  return {};
}

void put_name(ByteWriter& out, std::string_view name) {
  if (name.size() > 255) throw std::logic_error("a name of over 255 bytes");
  out.put(std::uint8_t(name.size()));
  out.put(bytes_of(name));
}

Result<std::string> get_name(ByteReader& in) {
  const auto size = TRY(in.get<std::uint8_t>());
  const auto bytes = TRY(in.take(size));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<Digest> get_digest(ByteReader& in) {
  const auto bytes = TRY(in.take(32));
  Digest digest;
  std::ranges::copy(bytes, digest.begin());
  return digest;
}

void encode(ByteWriter& out, const SessionContext& c) {
  out.put(kVersion);
  put_name(out, c.job);
  out.put(c.round);
  out.put(c.attempt);
  for (const auto* digest : {&c.model, &c.architecture, &c.roster, &c.plan})
    out.put(std::span<const std::byte>(*digest));
  out.put(std::uint8_t(c.k_min));
  out.put(std::uint8_t(c.colluders));
  out.put(std::uint8_t(c.threshold));
  out.put(std::uint8_t(c.recomputed));
  out.put(std::uint8_t(c.suite));
  out.put(std::uint8_t(c.vectors.size()));
  for (const auto& v : c.vectors) {
    put_name(out, v.name);
    out.put(v.words);
    out.put(std::uint8_t(v.bits));
  }
  out.put(std::uint8_t(c.members.size()));
  for (const auto& name : c.members) put_name(out, name);
}

Result<SessionContext> decode_context(ByteReader& in) {
  if (const auto version = TRY(in.get<std::uint8_t>()); version != kVersion)
    return fail(Code::kCorrupt, "context of version {}", version);
  SessionContext c;
  c.job = TRY(get_name(in));
  c.round = TRY(in.get<std::uint32_t>());
  c.attempt = TRY(in.get<std::uint32_t>());
  for (auto* digest : {&c.model, &c.architecture, &c.roster, &c.plan}) *digest = TRY(get_digest(in));
  c.k_min = TRY(in.get<std::uint8_t>());
  c.colluders = TRY(in.get<std::uint8_t>());
  c.threshold = TRY(in.get<std::uint8_t>());
  const auto recomputed = TRY(in.get<std::uint8_t>());
  if (recomputed > 1) return fail(Code::kCorrupt, "context: {} is no truth value", recomputed);
  c.recomputed = recomputed == 1;
  c.suite = Suite(TRY(in.get<std::uint8_t>()));
  const auto vectors = TRY(in.get<std::uint8_t>());
  if (vectors > kMaxVectors) return fail(Code::kCorrupt, "{} vectors; at most {}", vectors, kMaxVectors);
  for (int i = 0; i < vectors; ++i) {
    VectorSpec v;
    v.name = TRY(get_name(in));
    v.words = TRY(in.get<std::uint64_t>());
    v.bits = TRY(in.get<std::uint8_t>());
    c.vectors.push_back(std::move(v));
  }
  const auto members = TRY(in.get<std::uint8_t>());
  for (int i = 0; i < members; ++i) c.members.push_back(TRY(get_name(in)));
  return c;
}

}  // namespace preceptor::privacy
