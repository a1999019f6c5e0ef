#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "common/result.h"
#include "data/data.h"

namespace preceptor::data {

/// Images to be dealt, by stratum (a class, or a class of a site): available[stratum].
using Strata = std::vector<std::size_t>;
/// counts[stratum][part]: how many images of a stratum a part (site or split) gets.
using Counts = std::vector<std::vector<std::size_t>>;
/// weights[stratum][part] >= 0, not all zero in a stratum; only their proportions matter.
using Weights = std::vector<std::vector<double>>;

/// Deals every stratum in proportion to its weights. A count is off its exact share by less than
/// one; what rounding owes a part is carried to the next strata, so that its total is off by about
/// one too. A part of weight 0 gets nothing.
Counts apportion(const Strata& available, const Weights& weights);

/// Total of each part.
std::vector<std::size_t> part_totals(const Counts& counts);

/// Gives one image to each part that has none, from the part that has most: of the stratum that the
/// empty part weighs highest. Returns how many parts stay empty (fewer images than parts).
std::size_t fill_empty_parts(Counts& counts, const Weights& weights);

/// Class-by-site weights of a method (iid, quantity, dirichlet), such that dealing `available`
/// training images (by class) gives every site options.minimum:
///   iid        1
///   quantity   g_s   ~ Gamma(alpha): site sizes are Dirichlet(alpha), classes in equal proportions
///   dirichlet  g_s,c ~ Gamma(alpha): each class goes to the sites by Dirichlet(alpha), as in
///              Yurochkin 2019 (arXiv:1905.12022) and Li 2022 (arXiv:2102.02079)
/// Sites that fall short are drawn anew, the others stay, so thousands of sites settle too.
/// Error: kInvalid when there are too few images, or no draw settles.
Result<Weights> draw_weights(const PartitionOptions& options, const Strata& available,
                             std::uint64_t seed);

}  // namespace preceptor::data
