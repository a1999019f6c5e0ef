#pragma once
#include <fmt/format.h>

#include <map>
#include <memory>
#include <set>

#include "common/random.h"
#include "privacy/secure_aggregation/aggregation.h"
#include "privacy/secure_aggregation/party.h"

namespace preceptor::test {

using namespace privacy;

/// n hospitals with keys of their own, the roster that pins them, and what each has spent.
struct Consortium {
  std::vector<std::string> names;
  std::vector<KeySigner> signers;
  std::unique_ptr<KeyRoster> roster;
  std::vector<SpentUpdates> spent;

  explicit Consortium(int n) : spent(std::size_t(n)) {
    std::map<std::string, Bytes> keys;
    for (int i = 0; i < n; ++i) {
      names.push_back(fmt::format("hospital-{:03}", i + 1));
      signers.push_back(*KeySigner::generate());
      keys[names.back()] = signers.back().credential();
    }
    roster = std::make_unique<KeyRoster>(std::move(keys));
  }
  SessionContext context(int colluders = 0, Suite suite = Suite::kX25519ChaCha20, int bits = 32, std::uint64_t words = 16) const {
    SessionContext c;
    c.job = "test";
    c.round = 1;
    c.model = sha256("model");
    c.roster = roster->digest();
    c.k_min = 3;
    c.colluders = colluders;
    c.members = names;
    c.threshold = threshold_of(int(names.size()), colluders);
    c.suite = suite;
    c.vectors = {{"update", words, bits}, {"totals", 3, 64}};
    return c;
  }
};

/// What a node would sum.
struct Input {
  std::vector<std::uint32_t> words;
  std::vector<std::uint64_t> totals;
  std::array<Words, 2> vectors() { return {std::span(words), std::span(totals)}; }
  bool operator==(const Input&) const = default;
};
inline Input random_input(const SessionContext& context, std::uint64_t seed) {
  RandomStream random(seed, "input");
  Input input{std::vector<std::uint32_t>(context.vectors[0].words), std::vector<std::uint64_t>(context.vectors[1].words)};
  random.fill(input.words);
  for (auto& word : input.words) word &= ~0u >> (32 - context.vectors[0].bits);
  for (auto& word : input.totals) word = random.bits64();
  return input;
}
inline void add(Input& sum, const Input& input, int bits) {
  for (std::size_t i = 0; i < sum.words.size(); ++i) sum.words[i] = (sum.words[i] + input.words[i]) & (~0u >> (32 - bits));
  for (std::size_t i = 0; i < sum.totals.size(); ++i) sum.totals[i] += input.totals[i];
}

/// After which step a member falls silent.
enum Silence { kNever = 9, kBeforeAdvertise = 0, kBeforeShare = 1, kBeforeWords = 2, kBeforeConfirm = 3, kBeforeUnmask = 4 };

/// A whole session, members falling silent as told. `restart`: everything is stored and restored between
/// any two steps. Returns the open sum, or why there is none.
struct Outcome {
  Input sum;
  std::vector<Member> survivors;
};
struct Trial {
  Consortium& consortium;
  SessionContext context;
  std::vector<Input> inputs;
  std::vector<int> silent_from = {};  ///< by member; empty: nobody
  bool restart = false;
  std::vector<bool> makers = {};  ///< members that made the model themselves; empty: nobody did
  std::uint64_t order = 0;  ///< of arrivals
  std::vector<Input> masked = {};  ///< as sent, by member; empty where nothing was
  std::map<Member, std::string> liars = {};
  std::function<void(Member, Bytes&)> tamper = {};  ///< with what members send

  bool speaks(Member member, int step) const {
    return silent_from.empty() || silent_from[member - 1u] > step;
  }

  Result<Outcome> operator()() {
    const auto n = context.size();
    auto aggregation = TRY(Aggregation::create(context, *consortium.roster));
    std::map<Member, Party> parties;
    for (Member m = 1; m <= n; ++m) {
      const auto i = m - 1u;
      parties.emplace(m, TRY(Party::create(context, Policy{3, 0}, context.name(m), consortium.signers[i],
                                           *consortium.roster, consortium.spent[i])));
    }
    RandomStream random(order, "order");
    const auto shuffled = [&](Aggregation::Posts posts) {
      random.shuffle(std::span(posts));
      return posts;
    };
    const auto crash = [&]() -> Result<void> {
      if (!restart) return {};
      aggregation = TRY(Aggregation::restore(aggregation.store(), *consortium.roster));
      for (auto& [m, party] : parties)
        party = TRY(Party::restore(party.store(), consortium.signers[m - 1u], *consortium.roster, consortium.spent[m - 1u]));
      return {};
    };
    /// Delivers to parties, and their answers to the aggregation, each twice: duplicates change nothing.
    const auto exchange = [&](Aggregation::Posts posts, int step) -> Result<void> {
      for (const auto& [to, envelope] : shuffled(std::move(posts))) {
        if (!speaks(to, step)) continue;
        auto answer = TRY(parties.at(to).hear(envelope));
        if (auto same = parties.at(to).hear(envelope); !same || *same != answer) return fail(Code::kInvalid, "another answer");
        if (answer.empty()) continue;
        if (tamper) tamper(to, answer);
        for (int copy = 0; copy < 2; ++copy)
          if (auto heard = aggregation.hear(to, answer); !heard) return in(context.name(to), heard.error());
      }
      return crash();
    };
    for (const auto& [to, envelope] : shuffled(aggregation.invite())) {
      if (!speaks(to, kBeforeAdvertise)) continue;
      auto advertisement = parties.at(to).advertise();
      if (tamper) tamper(to, advertisement);
      if (auto heard = aggregation.hear(to, advertisement); !heard) return in(context.name(to), heard.error());
    }
    if (auto done = exchange(TRY(aggregation.close_roll()), kBeforeShare); !done) return std::unexpected(done.error());
    auto boxes = TRY(aggregation.close_shares());
    Outcome outcome{random_input(context, 0), {}};
    for (auto& word : outcome.sum.words) word = 0;
    for (auto& word : outcome.sum.totals) word = 0;
    masked.assign(n, Input{});
    if (auto done = exchange(boxes, kBeforeWords); !done) return std::unexpected(done.error());
    for (const auto& [member, box] : shuffled(std::move(boxes))) {
      if (!speaks(member, kBeforeWords)) continue;
      auto& words = masked[member - 1u] = inputs[member - 1u];
      if (auto hidden = parties.at(member).mask(words.vectors(), !makers.empty() && makers[member - 1u]); !hidden) return std::unexpected(hidden.error());
      add(outcome.sum, words, context.vectors[0].bits);
      if (auto joined = aggregation.joined(member); !joined) return std::unexpected(joined.error());
    }
    if (auto done = crash(); !done) return std::unexpected(done.error());
    if (auto done = exchange(TRY(aggregation.close_survivors()), kBeforeConfirm); !done) return std::unexpected(done.error());
    if (auto done = exchange(TRY(aggregation.close_confirmations()), kBeforeUnmask); !done) return std::unexpected(done.error());
    auto opened = aggregation.close_unmask();
    liars = aggregation.liars();
    if (!opened) return std::unexpected(opened.error());
    if (auto done = crash(); !done) return std::unexpected(done.error());
    // In two pieces, the second first.
    const auto cut = outcome.sum.words.size() / 2;
    if (auto off = aggregation.unmask(0, cut, std::span(outcome.sum.words).subspan(cut)); !off) return std::unexpected(off.error());
    if (auto off = aggregation.unmask(0, 0, std::span(outcome.sum.words).first(cut)); !off) return std::unexpected(off.error());
    if (auto off = aggregation.unmask(1, 0, std::span(outcome.sum.totals)); !off) return std::unexpected(off.error());
    outcome.survivors = aggregation.survivors();
    return outcome;
  }

  /// Plain sum of those who sent words.
  Input plain() const {
    Input sum{std::vector<std::uint32_t>(context.vectors[0].words), std::vector<std::uint64_t>(3)};
    for (Member m = 1; m <= context.size(); ++m)
      if (speaks(m, kBeforeAdvertise) && speaks(m, kBeforeShare) && speaks(m, kBeforeWords))
        add(sum, inputs[m - 1u], context.vectors[0].bits);
    return sum;
  }
  /// Members that go past a step.
  int past(int step) const {
    int count = 0;
    for (Member m = 1; m <= context.size(); ++m) count += speaks(m, step);
    return count;
  }
};

inline std::vector<Input> random_inputs(const SessionContext& context, std::uint64_t seed) {
  std::vector<Input> inputs;
  for (std::size_t i = 0; i < context.size(); ++i) inputs.push_back(random_input(context, seed * 1000 + i));
  return inputs;
}

}  // namespace preceptor::test
