#include <fmt/format.h>

#include <chrono>
#include <map>

#include "compression/update/sum_step.h"
#include "privacy/secure_aggregation/aggregation.h"
#include "privacy/secure_aggregation/party.h"

/// What masks cost: bench_secure_aggregation [parameters, default 25e6] [nodes, default 10]. One core.
/// First the raw cipher beside the mask folded into words; then a whole session, at a node and at the coordinator; then
/// what a node does to make the next model from the published sum.
namespace {

using namespace preceptor;
using namespace preceptor::privacy;

double seconds(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
/// Best of five: the others had company.
double best(auto&& work) {
  double least = seconds(work);
  for (int i = 0; i < 4; ++i) least = std::min(least, seconds(work));
  return least;
}
template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

void rates(Suite suite, const char* name, std::size_t words) {
  const auto key = must(Secret<32>::random());
  std::vector<std::uint32_t> sum(words);
  Bytes tile(MaskStream::kTileBytes);
  const double bytes = 4.0 * double(words);
  const double cipher = best([&] {
    auto stream = must(MaskStream::create(suite, key));
    for (std::size_t done = 0; done < 4 * words; done += tile.size()) must(stream.keystream(tile));
  });
  const double fold = best([&] {
    MaskSet masks;
    must(masks.add(suite, key, false));
    must(masks.fold(0, std::span(sum), 32));
  });
  const double fold20 = best([&] {
    MaskSet masks;
    must(masks.add(suite, key, true));
    must(masks.fold(0, std::span(sum), 20));
  });
  fmt::print("{:<12} keystream {:5.2f} GB/s   mask+add {:5.2f} GB/s ({:.0f} %)   in 20 bits {:5.2f} GB/s ({:.0f} %)\n", name, bytes / cipher / 1e9,
             bytes / fold / 1e9, 100 * cipher / fold, bytes / fold20 / 1e9, 100 * cipher / fold20);
}

void session(Suite suite, const char* name, std::size_t words, int nodes, int dropped) {
  SessionContext context;
  context.job = "bench";
  context.k_min = 3;
  context.suite = suite;
  context.vectors = {{"update", words, 20}};
  std::vector<KeySigner> signers;
  std::map<std::string, Bytes> keys;
  for (int i = 0; i < nodes; ++i) {
    context.members.push_back(fmt::format("node-{:03}", i));
    signers.push_back(must(KeySigner::generate()));
    keys[context.members.back()] = signers.back().credential();
  }
  const KeyRoster roster(keys);
  context.roster = roster.digest();
  context.threshold = threshold_of(nodes, 0);
  std::vector<SpentUpdates> spent{std::size_t(nodes)};
  std::vector<Party> parties;
  double node = 0, coordinator = 0;
  for (int i = 0; i < nodes; ++i)
    node += seconds([&] {
      parties.push_back(must(Party::create(context, {3, 0}, context.members[std::size_t(i)], signers[std::size_t(i)], roster, spent[std::size_t(i)])));
    });
  auto aggregation = must(Aggregation::create(context, roster));
  const auto at_coordinator = [&](auto work) { coordinator += seconds(work); };
  at_coordinator([&] {
    for (Member m = 1; m <= nodes; ++m) must(aggregation.hear(m, parties[m - 1u].advertise()));
  });
  const auto exchange = [&](const Aggregation::Posts& posts) {
    for (const auto& [to, envelope] : posts) {
      Bytes answer;
      node += seconds([&] { answer = must(parties[to - 1u].hear(envelope)); });
      if (!answer.empty()) at_coordinator([&] { must(aggregation.hear(to, answer)); });
    }
  };
  exchange(must(aggregation.close_roll()));
  exchange(must(aggregation.close_shares()));
  double masking = 0;
  std::vector<std::uint32_t> update(words), sum(words);
  for (Member m = 1; m <= nodes - dropped; ++m) {
    std::ranges::fill(update, m);
    std::vector<Words> vectors{std::span(update)};
    masking += seconds([&] { must(parties[m - 1u].mask(vectors)); });
    for (std::size_t i = 0; i < words; ++i) sum[i] += update[i];
    must(aggregation.joined(m));
  }
  exchange(must(aggregation.close_survivors()));
  exchange(must(aggregation.close_confirmations()));
  double unmasking = 0;
  at_coordinator([&] { must(aggregation.close_unmask()); });
  unmasking = seconds([&] { must(aggregation.unmask(0, 0, std::span(sum))); });
  const auto survivors = std::uint32_t(nodes - dropped);
  if (sum[words / 2] != survivors * (survivors + 1) / 2) throw std::runtime_error("a wrong sum");
  fmt::print("{:<12} {} nodes, {} dropped, {:.3g} words: a node {:.4f} s of protocol + {:.3f} s of masking; coordinator {:.4f} s + {:.3f} s of unmasking\n",
             name, nodes, dropped, double(words), node / nodes, masking / survivors, coordinator, unmasking);
}

void next_model(std::size_t parameters, int nodes) {
  using namespace preceptor::compression;
  ParameterSpace space;
  space.add("weight", {std::int64_t(parameters)}, Role::kWeight);
  const auto codec = must(RingCodec::create({.bits = 8, .max_nodes = nodes}, space));
  std::vector<float> model(parameters);
  for (std::size_t i = 0; i < parameters; ++i) model[i] = 1e-6f * float(i % 1000);
  ErrorFeedback none;
  Totals totals;
  totals.weight = codec.max_weight();
  totals.fidelity.resize(codec.stages().size());
  RingSum sum(codec);
  sum.add(codec.pack({must(codec.encode(model, codec.options().weight_cap, {1, 1}, RandomStream(1, "bench"), none)), totals.encode()}));
  const auto published = must(sum.publish());
  const SumStep step(codec, 1, 1, space);
  const double time = best([&] { must(step.apply(published, 1, model)); });
  fmt::print("the next model from the published sum: {:.3f} s; {:.1f} MB to fetch, whole {:.1f} MB\n", time, double(published.size()) / 1e6, 4e-6 * double(parameters));
}

}  // namespace

int main(int count, char** arguments) {
  const auto words = std::size_t(count > 1 ? std::stod(arguments[1]) : 25e6);
  const int nodes = count > 2 ? std::stoi(arguments[2]) : 10;
  rates(Suite::kX25519ChaCha20, "ChaCha20", words);
  rates(Suite::kP256Aes256, "AES-256-CTR", words);
  for (const int dropped : {0, nodes / 5}) {
    session(Suite::kX25519ChaCha20, "suite 1", words, nodes, dropped);
    session(Suite::kP256Aes256, "suite 2", words, nodes, dropped);
  }
  next_model(words, nodes);
}
