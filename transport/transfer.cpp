#include "transport/transfer.h"

#include <algorithm>

namespace preceptor::transport {

Digest BlobShelf::put(Blob blob) {
  const auto digest = sha256(*blob);
  blobs_[digest] = std::move(blob);
  return digest;
}

std::optional<Chunk> BlobShelf::serve(const Fetch& fetch) const {
  const auto found = blobs_.find(fetch.blob);
  if (found == blobs_.end() || fetch.offset > found->second->size()) return std::nullopt;
  const auto rest = std::span(*found->second).subspan(fetch.offset);
  const auto piece = rest.first(std::min({rest.size(), std::size_t(fetch.length), kChunkBytes}));
  return Chunk{fetch.blob, fetch.offset, {piece.begin(), piece.end()}};
}

std::optional<Fetch> BlobReceiver::next() {
  if (complete_ || asked_ >= size_ || asked_ >= bytes_.size() + kWindow * kChunkBytes) return std::nullopt;
  const auto length = std::uint32_t(std::min<std::uint64_t>(kChunkBytes, size_ - asked_));
  const Fetch fetch{digest_, asked_, length};
  asked_ += length;
  return fetch;
}

Result<void> BlobReceiver::accept(const Chunk& chunk) {
  if (chunk.blob != digest_ || complete_ || chunk.offset < bytes_.size()) return {};
  if (chunk.offset > bytes_.size() || chunk.bytes.empty() || chunk.bytes.size() > size_ - bytes_.size())
    return fail(Code::kCorrupt, "a piece of {} bytes at {} where {} of {} have arrived", chunk.bytes.size(), chunk.offset,
                bytes_.size(), size_);
  bytes_.insert(bytes_.end(), chunk.bytes.begin(), chunk.bytes.end());
  if (bytes_.size() < size_) return {};
  if (sha256(bytes_) != digest_) return fail(Code::kCorrupt, "the {} bytes that arrived do not have the promised hash", size_);
  complete_ = true;
  return {};
}

}  // namespace preceptor::transport
