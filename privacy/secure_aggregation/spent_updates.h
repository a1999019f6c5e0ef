#pragma once
#include <map>
#include <set>

#include "common/bytes.h"
#include "common/hash.h"

namespace preceptor::privacy {

/// What a node never does twice: take part in one session under two contexts, and mask one update for two
/// sessions (the difference of two masked sums would show it). A node stores it before a message leaves.
class SpentUpdates {
 public:
  /// session: digest of job, round and attempt. Error: kRefused, "session reuse".
  Result<void> open(const Digest& session);
  /// Error: kRefused, "an update is spent once masked".
  Result<void> spend(const Digest& update, const Digest& session);

  Bytes store() const;
  static Result<SpentUpdates> restore(std::span<const std::byte> bytes);

 private:
  std::set<Digest> sessions_;
  std::map<Digest, Digest> updates_;  ///< update → its session
};

}  // namespace preceptor::privacy
