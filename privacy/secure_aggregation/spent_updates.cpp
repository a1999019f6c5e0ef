#include "privacy/secure_aggregation/spent_updates.h"

#include "privacy/secure_aggregation/context.h"

namespace preceptor::privacy {

Result<void> SpentUpdates::open(const Digest& session) {
  if (!sessions_.insert(session).second)
    return fail(Code::kRefused, "session reuse: this node took part in this attempt of the round before");
  return {};
}

Result<void> SpentUpdates::spend(const Digest& update, const Digest& session) {
  const auto [entry, fresh] = updates_.emplace(update, session);
  if (!fresh) return fail(Code::kRefused, "an update is spent once masked: train anew for a new attempt");
  return {};
}

Bytes SpentUpdates::store() const {
  Bytes bytes;
  ByteWriter out(bytes);
  out.put(std::uint64_t(sessions_.size()));
  for (const auto& session : sessions_) out.put(std::span<const std::byte>(session));
  for (const auto& [update, session] : updates_) {
    out.put(std::span<const std::byte>(update));
    out.put(std::span<const std::byte>(session));
  }
  return bytes;
}

Result<SpentUpdates> SpentUpdates::restore(std::span<const std::byte> bytes) {
  SpentUpdates spent;
  ByteReader in(bytes);
  const auto sessions = TRY(in.get<std::uint64_t>());
  if (sessions > in.left() / 32) return fail(Code::kCorrupt, "spent updates: cut short");
  for (std::uint64_t i = 0; i < sessions; ++i) spent.sessions_.insert(TRY(get_digest(in)));
  while (in.left() > 0) {
    const auto update = TRY(get_digest(in));
    spent.updates_.emplace(update, TRY(get_digest(in)));
  }
  return spent;
}

}  // namespace preceptor::privacy
