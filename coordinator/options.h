#pragma once
#include "compression/update/downlink.h"

namespace preceptor::coordinator {

/// How a round is run.
struct RoundOptions {
  int rounds = 10;
  int sites = 0;               ///< sites to wait for before the first round; 0: as many as `quorum`
  int cohort = 0;              ///< sites asked in a round, drawn anew each time; 0: all that are there
  int quorum = 1;              ///< updates without which a round is void
  double quorum_share = 0.5;   ///< share of the cohort's training images that the updates must stand for
  std::chrono::seconds join_deadline{600};     ///< from the start, or the end of a round, until a quorum is here
  std::chrono::seconds deadline{600};          ///< from a round's start to its last update
  std::chrono::seconds report_deadline{1800};  ///< from the last round to the last verdict
  int uploads = 4;             ///< updates fetched at a time: memory is this many compressed updates
  double max_norm = 1000;      ///< L2 of an update above which it is refused
  int max_void_rounds = 3;     ///< void rounds in a row after which the job is given up
  double learning_rate = 1;    ///< of the server: share of the mean update that is applied
  compression::DownlinkOptions downlink{};  ///< how the new model reaches the sites
  template <class V>
  void visit(V& v) {
    v("rounds", rounds, Range{1, 100000});
    v("sites", sites, Range{0, 100000});
    v("cohort", cohort, Range{0, 100000});
    v("quorum", quorum, Range{1, 100000});
    v("quorum_share", quorum_share, Range{0, 1});
    v("join_deadline", join_deadline, Range{1, 1e7});
    v("deadline", deadline, Range{1, 1e7});
    v("report_deadline", report_deadline, Range{1, 1e7});
    v("uploads", uploads, Range{1, 1000});
    v("max_norm", max_norm, Range{0, 1e12});
    v("max_void_rounds", max_void_rounds, Range{1, 1000});
    v("learning_rate", learning_rate, Range{0.001, 10});
    v("downlink", downlink);
  }
};

}  // namespace preceptor::coordinator
