#pragma once
#include "common/options.h"
#include "privacy/differential_privacy/differential_privacy.h"
#include "privacy/secure_aggregation/options.h"

namespace preceptor::node {

/// What this site is willing to do, whatever a plan asks. A plan beyond it is refused, with the rule's name.
struct LimitOptions {
  int max_rounds = 1000;
  int max_epochs = 100;     ///< of one round
  int max_threads = 16;     ///< that training may use
  double model_mib = 512;   ///< largest student, as float32
  double teacher_mib = 0;   ///< largest teacher to fetch; a larger one is done without
  privacy::PrivacyLimits privacy;
  privacy::SecureAggregationLimits secure_aggregation{};
  template <class V>
  void visit(V& v) {
    v("max_rounds", max_rounds, Range{1, 1e6});
    v("max_epochs", max_epochs, Range{1, 1e6});
    v("max_threads", max_threads, Range{1, 1024});
    v("model_mib", model_mib, Range{0.1, 1e6});
    v("teacher_mib", teacher_mib, Range{0, 1e6});
    v("privacy", privacy);
    v("secure_aggregation", secure_aggregation);
  }
};

}  // namespace preceptor::node
