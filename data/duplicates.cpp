#include "data/duplicates.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "common/hash.h"

namespace preceptor::data {
namespace {

int rank(Split split) {
  switch (split) {
    case Split::kTest:
      return 0;
    case Split::kValidation:
      return 1;
    case Split::kTrain:
      return 2;
    case Split::kUnassigned:
      return 3;
  }
  return 3;
}

struct DigestHash {
  std::size_t operator()(const Digest& digest) const {
    std::size_t head;
    std::memcpy(&head, digest.data(), sizeof head);
    return head;
  }
};

struct Seen {
  std::size_t first;  ///< index of the first image of the best split
  bool contradicts = false, dropped = false;
};

bool labelled_alike(const Dataset& images, std::size_t a, std::size_t b) {
  if (images.segmentation) return std::ranges::equal(images.mask(a), images.mask(b));
  return images.labels[a] == images.labels[b];
}

}  // namespace

Duplicates find_duplicates(const Source& source) {
  const auto count = source.images.size();
  Duplicates result{std::vector<bool>(count, true)};
  std::vector<Digest> digests(count);
  std::unordered_map<Digest, Seen, DigestHash> seen;
  for (std::size_t i = 0; i < count; ++i) {
    digests[i] = sha256(std::as_bytes(source.images.image(i)));
    auto [entry, fresh] = seen.try_emplace(digests[i], Seen{i});
    if (fresh) continue;
    auto& known = entry->second;
    if (!labelled_alike(source.images, i, known.first) && !known.contradicts) {
      known.contradicts = true;
      ++result.contradictions;
    }
    if (rank(source.splits[i]) < rank(source.splits[known.first])) known.first = i;
  }
  for (std::size_t i = 0; i < count; ++i) {
    auto& known = seen.at(digests[i]);
    const bool alike = source.splits[i] == source.splits[known.first];
    result.keep[i] = i == known.first || (alike && source.splits[i] != Split::kUnassigned);
    if (result.keep[i]) continue;
    ++result.dropped;
    result.distinct += !std::exchange(known.dropped, true);
  }
  return result;
}

}  // namespace preceptor::data
