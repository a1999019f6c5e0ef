#pragma once
#include <set>

#include "coordinator/round.h"
#include "tests/coordinator/made.h"

namespace preceptor::coordinator::test {

using namespace std::chrono_literals;
using transport::Accepted;
using transport::Chunk;
using transport::Fetch;
using transport::kChunkBytes;
using transport::Refused;
using transport::RoundStart;
using transport::UpdateOffer;
using testing::SizeIs;

/// What a site has to give: its update and the offer of it.
struct Gift {
  transport::BlobShelf shelf;
  UpdateOffer offer;
};

class RoundTest : public testing::Test {
 protected:
  explicit RoundTest(std::int64_t floats = 64) : space(made_space(floats)) {}

  Round round_of(Cohort cohort, RoundOptions options = {}) {
    options.deadline = 100s;
    return Round(3, std::move(cohort), options, downlink, space.architecture_hash(), sum, start);
  }
  Gift gift(Bytes update, std::uint64_t samples, double loss = 0.5) const {
    Gift made;
    const auto size = update.size();
    const auto digest = made.shelf.put(std::make_shared<const Bytes>(std::move(update)));
    made.offer = {3, digest, size, space.architecture_hash(), samples, loss};
    return made;
  }
  Gift good(std::uint64_t seed, std::uint64_t samples, double loss = 0.5) const {
    return gift(encoded(codec, made_delta(space, seed)), samples, loss);
  }
  /// Answers what the round asks of this peer until it asks no more. Returns all that it said but
  /// the questions to this peer.
  static Round::Sends serve(Round& round, const std::string& peer, const Gift& from,
                            Round::Sends sends) {
    Round::Sends others;
    std::deque<Round::Send> queue(sends.begin(), sends.end());
    while (!queue.empty()) {
      const auto send = queue.front();
      queue.pop_front();
      const auto* fetch = std::get_if<Fetch>(&send.message);
      if (!fetch || send.peer != peer) {
        others.push_back(send);
        continue;
      }
      for (auto& next : round.arrived(peer, from.shelf.serve(*fetch).value()))
        queue.push_back(next);
    }
    return others;
  }
  static Round::Sends give(Round& round, const std::string& peer, const Gift& from) {
    return serve(round, peer, from, round.offered(peer, from.offer));
  }
  /// The one refusal among the sends.
  static std::string refusal(const Round::Sends& sends, const std::string& peer) {
    const auto all = sent<Refused>(sends, peer);
    EXPECT_THAT(all, SizeIs(1));
    return all.empty() ? "" : all.front().reason;
  }
  std::vector<float> mean() const {
    std::vector<float> values(space.size());
    sum.apply(values, 1);
    return values;
  }

  ParameterSpace space;
  compression::UpdateCodec codec = made_codec(space);
  PlainSum sum{codec, space.size()};
  transport::BlobShelf shelf;
  const Downlink downlink{nullptr, 1, shelf, std::make_shared<const Bytes>(1234, std::byte{1})};
  const Digest model = downlink.digest();
  const Time start = 1000s, end = 1100s;
};

}  // namespace preceptor::coordinator::test
