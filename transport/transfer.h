#pragma once
#include <map>
#include <memory>
#include <optional>

#include "transport/messages.h"

namespace preceptor::transport {

/// Bytes that many readers share; nobody changes them.
using Blob = std::shared_ptr<const Bytes>;

/// What this side gives to whoever asks for it by content.
class BlobShelf {
 public:
  /// Returns the blob's SHA-256.
  Digest put(Blob blob);
  void put(const Digest& digest, Blob blob) { blobs_[digest] = std::move(blob); }
  void drop(const Digest& digest) { blobs_.erase(digest); }
  /// The piece asked for, at most kChunkBytes; nothing when the blob is not here or ends before.
  std::optional<Chunk> serve(const Fetch& fetch) const;

 private:
  std::map<Digest, Blob> blobs_;
};

/// One blob on its way in. The receiver asks, so it sets the pace: at most kWindow pieces are under way.
/// After a broken connection it goes on behind the last byte it has. Memory grows with what arrived. A blob
/// of no bytes is never asked for and never complete: refuse it before.
class BlobReceiver {
 public:
  static constexpr std::uint64_t kWindow = 4;

  BlobReceiver(const Digest& digest, std::uint64_t size) : digest_(digest), size_(size) {}

  /// The next piece to ask for; nothing while the window is full or all was asked for.
  std::optional<Fetch> next();
  /// Takes an answer. Pieces of other blobs and repeated ones are ignored.
  /// Error: kCorrupt, when the whole does not have the promised hash or a piece is out of place.
  Result<void> accept(const Chunk& chunk);
  /// The connection is new: what was asked for on the old one will not come.
  void resume() { asked_ = bytes_.size(); }
  bool complete() const { return complete_; }
  const Digest& digest() const { return digest_; }
  /// The bytes, once complete.
  Bytes take() { return std::move(bytes_); }

 private:
  Digest digest_;
  std::uint64_t size_, asked_ = 0;
  Bytes bytes_;
  bool complete_ = false;
};

}  // namespace preceptor::transport
