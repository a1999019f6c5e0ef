#pragma once
#include <vector>

#include "transport/messages.h"

namespace preceptor::test {

/// One message of every kind, each field filled, for round trips and as seeds of the fuzz targets.
inline std::vector<transport::Message> one_message_of_each_kind() {
  using namespace transport;
  const auto digest = sha256("a blob");
  const Estimate estimate{true, 0.75, 0.5, 0.875};
  return {Hello{}, Ready{4708},
          Welcome{.plan = "rounds: 20\n"},
          RoundStart{3, digest, 1 << 20, sha256("an architecture"), 120'000, {{digest, sha256("a delta"), 70'000, 2}}},
          Fetch{digest, 256 << 10, kChunkBytes},
          Chunk{digest, 512 << 10, Bytes(1000, std::byte{7})},
          UpdateOffer{3, digest, 70'000, sha256("an architecture"), 4708, 0.25, {{"topk", 0.5, 0.25}, {"zstd", 0.5, 0.25}}},
          Accepted{3, digest},
          Refused{3, "the update's norm is over the clip"},
          Finish{20, digest, 1 << 20, {{sha256("a base"), digest, 5}, {digest, sha256("a delta"), 6}}},
          SiteReport{100, 20, 30, estimate, estimate, estimate, estimate, estimate, estimate, estimate, estimate,
                     estimate,
                     "global", "auc", 0.0625, 0.03125, 0.125, 0.5, "federation helped"},
          Goodbye{"the job is over"},
          SecureAggregation{3, Bytes(300, std::byte{9})}};
}

}  // namespace preceptor::test
