#pragma once
#include "data/source.h"

namespace preceptor::data {

/// How a source is dealt to sites.
struct PartitionOptions {
  std::string method = "site";  ///< site (the source's own), iid, dirichlet, quantity
  int sites = 4;                ///< unused by "site"
  double alpha =
      0.5;  ///< dirichlet: of class shares; quantity: of site sizes. Smaller is more skewed
  int minimum = 16;  ///< training images that every site gets at least
  double validation =
      0.15;  ///< share of a site's images held out, where the source has no split of its own
  double test = 0.25;  ///< likewise
  double consortium =
      0.0;  ///< share of the training images that the coordinator owns (for the teacher)
  template <class V>
  void visit(V& v) {
    v("method", method, OneOf{"site", "iid", "dirichlet", "quantity"});
    v("sites", sites, Range{1, 4096});
    v("alpha", alpha, Range{1e-3, 1e6});
    v("minimum", minimum, Range{1, 1e9});
    v("validation", validation, Range{0, 0.9});
    v("test", test, Range{0, 0.9});
    v("consortium", consortium, Range{0, 0.95});
  }
};

/// The `data:` group of a configuration. Its source keys and `partition` stand side by side.
struct DataOptions : SourceOptions {
  PartitionOptions partition;
  template <class V>
  void visit(V& v) {
    SourceOptions::visit(v);
    v("partition", partition);
  }
};

/// A hospital's images.
struct Site {
  std::string name;  ///< "site-1" … or the source's own
  Splits data;
};

/// What was found on the way; goes into the run's record. Names files, never contents.
struct DataReport {
  std::vector<std::string> skipped;  ///< unreadable images, "path: why"
  std::size_t duplicates =
      0;  ///< images left out because test or validation, or an unsplit source, had them already
  std::vector<std::string> notes;  ///< one line each: what a reader of the record should know
};

/// A data set dealt to a consortium and its hospitals.
struct Federation {
  Splits consortium;  ///< coordinator's own train and validation; `test` is the union of all sites'
                      ///< tests
  std::vector<Site> sites;  ///< in a fixed order
  DataReport report;
};

/// Deals a source. The same source, options and seed give the same federation, on any machine.
/// An image that occurs in more than one split (SHA-256 of its pixels) is kept in the test or
/// validation part only, so that training never sees what it is judged on; how many were dropped is
/// reported. Errors: kInvalid when there are too few images for `sites` × `minimum`, or no site
/// column.
Result<Federation> federate(Source source, const PartitionOptions& options, std::uint64_t seed);

/// read_source, then federate.
Result<Federation> load(const DataOptions& options, std::uint64_t seed);

}  // namespace preceptor::data
