#pragma once
#include "node/local_round.h"

namespace preceptor::node {

/// A site's own answer to "did federation help me?", on its own test split. Three models compete:
///   local         the first student it received, trained on its own images alone for as many epochs as the
///                 federation gave it;
///   global        the federation's last student;
///   personalised  global, fine-tuned on its own images for personalise_epochs.
/// The federation's offer is global or personalised, whichever is better on the validation split; the verdict
/// compares it with local by a paired bootstrap ("helped" or "harmed" when p < 0.05).
struct Verdict {
  transport::SiteReport report;
  std::vector<float> local, global, personalised;  ///< flat parameters, to be kept by the site
};
Result<Verdict> judge(Workbench& bench, const SiteState& site, const Bytes& global);

}  // namespace preceptor::node
