#include <algorithm>

#include "privacy/secure_aggregation/aggregation.h"
#include "privacy/secure_aggregation/key_agreement.h"
#include "privacy/secure_aggregation/key_schedule.h"
#include "privacy/secure_aggregation/shamir.h"

/// R4 at the coordinator: from shares to secrets, from secrets to masks, and the masks off the sum.
namespace preceptor::privacy {
namespace {

constexpr int kMaxAttempts = 20000;  ///< subsets of shares that are tried before a secret is given up

/// Next t-subset of 0..n-1 in lexicographic order; false after the last.
bool next_subset(std::vector<std::size_t>& subset, std::size_t n) {
  for (std::size_t i = subset.size(); i-- > 0;)
    if (subset[i] + (subset.size() - i) < n) {
      ++subset[i];
      for (std::size_t j = i + 1; j < subset.size(); ++j) subset[j] = subset[j - 1] + 1;
      return true;
    }
  return false;
}

}  // namespace

Result<Secret<32>> Aggregation::open_secret(Member owner, ShareKind kind) {
  std::vector<Share> shares;
  for (const auto& [holder, seat] : seats_) {
    if (seat.heard[3].empty()) continue;
    auto unmask = heard<Unmask>(holder, 3);
    for (auto& entry : unmask.entries)
      if (entry.peer == owner) shares.push_back({holder, std::move(entry.share)});
  }
  const auto& advertised = of(owner);
  const auto right = [&](const Secret<32>& secret) {
    if (kind == ShareKind::kSeed) return seed_commitment(session_, owner, secret) == advertised.commitment;
    const auto key = AgreementKey::of(context_.suite, secret.copy());
    return key && key->public_key() == advertised.mask_key;
  };
  const auto t = std::size_t(context_.threshold);
  if (shares.size() < t)
    return fail(Code::kUnavailable, "{} shares of {}; {} are needed", shares.size(), context_.name(owner), t);
  std::vector<std::size_t> subset(t);
  for (std::size_t i = 0; i < t; ++i) subset[i] = i;
  // Lies may cancel at the secret and still be lies: of all polynomials through it, the one that most shares
  // lie on is believed.
  std::optional<Secret<32>> found;
  std::vector<Member> disagree;
  for (int attempt = 0; attempt < kMaxAttempts && !(found && disagree.empty()); ++attempt) {
    std::vector<const Share*> chosen;
    for (const auto i : subset) chosen.push_back(&shares[i]);
    auto secret = interpolate(chosen, 0);
    if (right(secret)) {
      std::vector<Member> others;
      for (const auto& share : shares)
        if (!(interpolate(chosen, share.x) == share.y)) others.push_back(share.x);
      if (!found || others.size() < disagree.size()) disagree = std::move(others);
      found = std::move(secret);
    }
    if (!next_subset(subset, shares.size())) break;
  }
  for (const auto holder : disagree)
    liars_.emplace(holder, fmt::format("{} holds a share of {} that disagrees with the others: one of the two lied",
                                       context_.name(holder), context_.name(owner)));
  if (found) return std::move(*found);
  return fail(Code::kUnavailable, "no {} of {} shares make up what {} advertised", t, shares.size(), context_.name(owner));
}

Result<void> Aggregation::add_masks(Member owner, ShareKind kind, const Secret<32>& secret) {
  if (kind == ShareKind::kSeed) {
    for (std::size_t v = 0; v < masks_.size(); ++v) {
      const auto key = TRY(self_mask_key(secret, group_, owner, context_.vectors[v]));
      if (auto added = masks_[v].add(context_.suite, key, true); !added) return added;
    }
    return {};
  }
  // What the survivors put on for a member whose own half never came.
  const auto key = TRY(AgreementKey::of(context_.suite, secret.copy()));
  for (const auto peer : survivors_.alive) {
    const auto agreed = TRY(key.agree(of(peer).mask_key));
    for (std::size_t v = 0; v < masks_.size(); ++v) {
      const auto pair = TRY(pair_mask_key(agreed, group_, peer, owner, context_.vectors[v]));
      if (auto added = masks_[v].add(context_.suite, pair, peer > owner); !added) return added;
    }
  }
  return {};
}

Result<void> Aggregation::close_unmask() {
  if (phase_ != Phase::kUnmask) throw std::logic_error("shares are not being waited for");
  masks_.clear();
  masks_.resize(context_.vectors.size());
  for (const auto owner : sharers_) {
    const auto kind = std::ranges::binary_search(survivors_.alive, owner) ? ShareKind::kSeed : ShareKind::kMaskKey;
    const auto secret = TRY(open_secret(owner, kind));
    if (auto added = add_masks(owner, kind, secret); !added) return added;
  }
  phase_ = Phase::kOpen;
  return {};
}

Result<void> Aggregation::unmask(std::size_t vector, std::uint64_t first, Words sum) {
  if (phase_ != Phase::kOpen) throw std::logic_error("the masks are not known yet");
  return masks_.at(vector).fold(first, sum, context_.vectors[vector].bits);
}

}  // namespace preceptor::privacy
