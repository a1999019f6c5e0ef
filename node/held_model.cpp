#include "node/held_model.h"

#include "common/bytes.h"

namespace preceptor::node {
namespace {
constexpr std::uint8_t kVersion = 1;
}

Bytes store(const HeldModel& model, const Digest& plan) {
  Bytes bytes;
  bytes.reserve(128 + model.blob->size());
  ByteWriter out(bytes);
  out.put(kVersion);
  out.put(std::span<const std::byte>(plan));
  out.put(std::span<const std::byte>(model.digest));
  out.put(model.round);
  out.put(std::uint8_t(model.recomputed));
  out.put(std::span<const std::byte>(*model.blob));
  return bytes;
}

Result<HeldModel> restore_model(std::span<const std::byte> bytes, const Digest& plan) {
  ByteReader in(bytes);
  if (const auto version = TRY(in.get<std::uint8_t>()); version != kVersion) return fail(Code::kCorrupt, "stored model of version {}", version);
  if (!std::ranges::equal(TRY(in.take(plan.size())), plan)) return fail(Code::kRefused, "stored model of another plan");
  HeldModel model;
  std::ranges::copy(TRY(in.take(model.digest.size())), model.digest.begin());
  model.round = TRY(in.get<std::uint32_t>());
  model.recomputed = TRY(in.get<std::uint8_t>()) == 1;
  const auto rest = TRY(in.take(in.left()));
  if (sha256(rest) != model.digest) return fail(Code::kCorrupt, "stored model with another hash");
  model.blob = std::make_shared<const Bytes>(rest.begin(), rest.end());
  return model;
}

}  // namespace preceptor::node
