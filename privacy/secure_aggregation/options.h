#pragma once
#include "common/options.h"
#include "privacy/secure_aggregation/context.h"

namespace preceptor::privacy {

/// What a plan says of secure aggregation; it needs update.profile: secure.
struct SecureAggregationOptions {
  std::string mode = "off";  ///< off: the coordinator sees each update; masked: only sums of k_min hospitals and more
  int suite = 1;             ///< 1: X25519 and ChaCha20; 2: P-256 and AES-256
  int k_min = 5;             ///< hospitals without which there is no sum
  int colluders = 0;         ///< f: hospitals that the coordinator may have on its side
  std::chrono::seconds step_deadline{60};  ///< of each exchange (keys, shares, confirmations, unmasking)
  template <class V>
  void visit(V& v) {
    v("mode", mode, OneOf{"off", "masked"});
    v("suite", suite, Range{1, 2});
    v("k_min", k_min, Range{kSmallestCohort, 255});
    v("colluders", colluders, Range{0, 254});
    v("step_deadline", step_deadline, Range{1, 1e7});
  }
  bool masked() const { return mode == "masked"; }
};

/// What a node insists on, whatever a plan asks.
struct SecureAggregationLimits {
  bool required = false;  ///< plans without masks are refused
  int k_min = 5;          ///< the plan's may not be below
  int colluders = 0;      ///< nor may this
  bool recompute = true;  ///< plans with masks must let this site make each model itself from the published sums (downlink.mode: sum)
  template <class V>
  void visit(V& v) {
    v("required", required);
    v("k_min", k_min, Range{kSmallestCohort, 255});
    v("colluders", colluders, Range{0, 254});
    v("recompute", recompute);
  }
};

}  // namespace preceptor::privacy
