// Dealing a source to a consortium and its hospitals: hold out, share with the coordinator, deal.
#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>

#include "common/random.h"
#include "data/data.h"
#include "data/deal.h"
#include "data/duplicates.h"

namespace preceptor::data {
namespace {

using Index = std::vector<std::size_t>;  // images, by place in the source
using Pools = std::array<Index, 3>;      // of train, validation, test
constexpr std::array kPoolNames{"training", "validation", "test"};

Dataset& pool_of(Splits& splits, std::size_t pool) {
  return pool == 0 ? splits.train : pool == 1 ? splits.validation : splits.test;
}

class Dealer {
 public:
  Dealer(const Source& source, const PartitionOptions& options, std::uint64_t seed)
      : source_(source), options_(options), seed_(seed), own_sites_(options.method == "site") {}

  Result<Federation> deal() {
    if (auto checked = check(); !checked) return std::unexpected(checked.error());
    Pools pools = hold_out(usable());
    Pools consortium = share(pools);
    auto by_site = TRY(own_sites_ ? by_source(pools) : by_draw(pools));
    return gather(consortium, by_site);
  }

 private:
  std::size_t class_of(std::size_t i) const { return std::size_t(source_.images.labels[i]); }
  std::size_t classes() const { return source_.images.classes.size(); }
  std::size_t site_of(std::size_t i) const {
    return own_sites_ ? std::size_t(source_.sites[i]) : 0;
  }
  template <class... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    report_.notes.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  Result<void> check() const {
    const auto count = source_.images.size();
    if (source_.splits.size() != count || source_.sites.size() != count)
      throw std::logic_error("federate: splits or sites are not one per image");
    for (const auto label : source_.images.labels)
      if (label < 0 || std::size_t(label) >= classes())
        throw std::logic_error("federate: a label without a class");
    if (options_.validation + options_.test >= 1)
      return fail(Code::kInvalid,
                  "data.partition: validation {} and test {} leave nothing to train on",
                  options_.validation, options_.test);
    if (!own_sites_) return {};
    if (source_.site_names.empty())
      return fail(
          Code::kInvalid,
          "data.partition.method: site, but the source names no sites; add a 'site' column, or "
          "take iid, dirichlet or quantity");
    const auto unknown = std::ranges::count(source_.sites, -1);
    if (unknown > 0)
      return fail(Code::kInvalid, "data.partition.method: site, but {} of {} images name no site",
                  unknown, count);
    return {};
  }

  // Images by split (unassigned last), without those that an earlier split has too.
  std::array<Index, 4> usable() {
    const auto duplicates = find_duplicates(source_);
    report_.duplicates = duplicates.dropped;
    if (duplicates.dropped > 0)
      note(
          "{} images ({} distinct) also stood in an earlier split, or twice in an unsplit source, "
          "and were left out",
          duplicates.dropped, duplicates.distinct);
    if (duplicates.contradictions > 0)
      note("{} images occur with more than one {}", duplicates.contradictions,
           source_.images.segmentation ? "label map" : "class");
    std::array<Index, 4> pools;
    for (std::size_t i = 0; i < source_.images.size(); ++i)
      if (duplicates.keep[i]) pools[std::size_t(source_.splits[i])].push_back(i);
    return pools;
  }

  // Splits what the source did not split: its unassigned images, and training images where it has
  // no validation or test part at all.
  Pools hold_out(std::array<Index, 4> given) {
    const double v = options_.validation, t = options_.test;
    Pools pools{Index{}, std::move(given[1]), std::move(given[2])};
    const double missing_v = pools[1].empty() ? v : 0, missing_t = pools[2].empty() ? t : 0;
    if (!given[0].empty())
      for (std::size_t pool : {1, 2})
        if (const double part = pool == 1 ? missing_v : missing_t; part > 0)
          note("the source has no {} part: {:.0f} % of its training images are held out",
               kPoolNames[pool], 100 * part);
    split(given[0], {1 - missing_v - missing_t, missing_v, missing_t}, "partition/train", pools);
    split(given[3], {1 - v - t, v, t}, "partition/unassigned", pools);
    return pools;
  }

  // Adds the images to the pools by these shares: site by site, each class in proportion.
  void split(const Index& images, std::array<double, 3> shares, const char* stream, Pools& pools) {
    std::vector<std::size_t> active;
    std::vector<double> weights;
    for (std::size_t pool = 0; pool < 3; ++pool)
      if (shares[pool] > 0) active.push_back(pool), weights.push_back(shares[pool]);
    std::map<std::size_t, Index> sites;
    for (const auto i : images) sites[site_of(i)].push_back(i);
    for (auto& [site, own] : sites) {
      const auto strata = by_class(own);
      const Weights table(strata.size(), weights);
      auto counts = apportion(sizes(strata), table);
      fill_empty_parts(counts, table);
      RandomStream random(seed_, stream, {site});
      auto parts = hand_out(strata, counts, random);
      for (std::size_t k = 0; k < active.size(); ++k)
        pools[active[k]].insert(pools[active[k]].end(), parts[k].begin(), parts[k].end());
    }
    for (auto& pool : pools) std::ranges::sort(pool);
  }

  // Takes the coordinator's share out of training and validation: of each class of each site alike.
  Pools share(Pools& pools) {
    Pools own;
    if (options_.consortium <= 0) return own;
    for (std::size_t pool : {0, 1}) {
      std::map<std::pair<std::size_t, std::size_t>, Index> groups;
      for (const auto i : pools[pool]) groups[{site_of(i), class_of(i)}].push_back(i);
      std::vector<Index> strata;
      for (const auto& [key, images] : groups) strata.push_back(images);
      const Weights weights(strata.size(), {1 - options_.consortium, options_.consortium});
      auto counts = apportion(sizes(strata), weights);
      if (own_sites_) leave_one(strata, counts);
      RandomStream random(seed_, "partition/consortium", {pool});
      auto parts = hand_out(strata, counts, random);
      if (parts.empty()) continue;
      pools[pool] = std::move(parts[0]);
      own[pool] = std::move(parts[1]);
    }
    return own;
  }

  // Gives a site whose last image the consortium would take (part 1) that image back (part 0).
  void leave_one(const std::vector<Index>& strata, Counts& counts) const {
    std::map<std::size_t, std::size_t> left;
    for (std::size_t k = 0; k < strata.size(); ++k) left[site_of(strata[k][0])] += counts[k][0];
    for (std::size_t k = 0; k < strata.size(); ++k)
      if (auto& kept = left[site_of(strata[k][0])]; kept == 0) {
        --counts[k][1];
        ++counts[k][0];
        ++kept;
      }
  }

  Result<std::vector<Pools>> by_source(const Pools& pools) const {
    std::vector<Pools> sites(source_.site_names.size());
    for (std::size_t pool = 0; pool < 3; ++pool)
      for (const auto i : pools[pool]) sites[site_of(i)][pool].push_back(i);
    for (std::size_t s = 0; s < sites.size(); ++s)
      if (sites[s][0].size() < std::size_t(options_.minimum))
        return fail(Code::kInvalid,
                    "data.partition: site '{}' has {} training images, {} are wanted; lower "
                    "data.partition.minimum or leave the site out",
                    source_.site_names[s], sites[s][0].size(), options_.minimum);
    return sites;
  }

  Result<std::vector<Pools>> by_draw(const Pools& pools) const {
    const auto weights = TRY(draw_weights(options_, sizes(by_class(pools[0])), seed_));
    std::vector<Pools> sites{std::size_t(options_.sites)};
    for (std::size_t pool = 0; pool < 3; ++pool) {
      const auto strata = by_class(pools[pool]);
      auto counts = apportion(sizes(strata), weights);
      if (pool > 0) fill_empty_parts(counts, weights);
      RandomStream random(seed_, "partition/deal", {pool});
      auto parts = hand_out(strata, counts, random);
      for (std::size_t s = 0; s < sites.size(); ++s) sites[s][pool] = std::move(parts[s]);
    }
    return sites;
  }

  Federation gather(const Pools& consortium, std::vector<Pools>& by_site) {
    const auto& images = source_.images;
    Federation federation;
    for (std::size_t pool = 0; pool < 3; ++pool) {
      std::size_t without = 0;
      for (const auto& site : by_site) without += site[pool].empty();
      if (without > 0)
        note("{} of {} sites have no {} images", without, by_site.size(), kPoolNames[pool]);
      pool_of(federation.consortium, pool) = images.subset(consortium[pool]);
    }
    for (std::size_t s = 0; s < by_site.size(); ++s) {
      Site site{own_sites_ ? source_.site_names[s] : fmt::format("site-{}", s + 1), {}};
      RandomStream random(seed_, "partition/order", {s});  // a source may be sorted by class
      for (std::size_t pool = 0; pool < 3; ++pool) {
        random.shuffle(std::span(by_site[s][pool]));
        pool_of(site.data, pool) = images.subset(by_site[s][pool]);
      }
      federation.consortium.test.append(site.data.test);
      federation.sites.push_back(std::move(site));
    }
    report_.skipped = source_.skipped;
    federation.report = std::move(report_);
    return federation;
  }

  std::vector<Index> by_class(const Index& images) const {
    std::vector<Index> strata(classes());
    for (const auto i : images) strata[class_of(i)].push_back(i);
    return strata;
  }

  static Strata sizes(const std::vector<Index>& strata) {
    Strata counts;
    for (const auto& stratum : strata) counts.push_back(stratum.size());
    return counts;
  }

  // Cuts each stratum, in random order, into parts of the counted sizes.
  static std::vector<Index> hand_out(std::vector<Index> strata, const Counts& counts,
                                     RandomStream& random) {
    std::vector<Index> parts(counts.empty() ? 0 : counts.front().size());
    for (std::size_t c = 0; c < strata.size(); ++c) {
      random.shuffle(std::span(strata[c]));
      auto next = strata[c].begin();
      for (std::size_t p = 0; p < parts.size(); ++p) {
        const auto end = next + std::ptrdiff_t(counts[c][p]);
        parts[p].insert(parts[p].end(), next, end);
        next = end;
      }
    }
    return parts;
  }

  const Source& source_;
  const PartitionOptions& options_;
  std::uint64_t seed_;
  bool own_sites_;
  DataReport report_;
};

}  // namespace

Result<Federation> federate(Source source, const PartitionOptions& options, std::uint64_t seed) {
  return Dealer(source, options, seed).deal();
}

}  // namespace preceptor::data
