#pragma once
#include <optional>
#include <variant>
#include <vector>

#include "node/held_model.h"
#include "transport/messages.h"

namespace preceptor::node {

/// To be applied to an older model; Site does.
struct Patch {
  transport::Blob base;
  std::vector<transport::ModelPatch> patches;  ///< in the order in which they apply
  std::vector<Bytes> deltas;                   ///< their bytes
  Digest model{};                              ///< of what must come out
};
struct Patched {  ///< answer to Patch
  transport::Blob model;  ///< null: what came out is not the model that was promised
  std::string why{};      ///< then
};

/// How a site comes by each global model: it is here, patches lead to it from the last one, or it comes whole. Says
/// what to fetch next, and fetches nothing itself. Part of Session.
///
/// Where patches are published sums, the site makes each model itself: one that the sums do not lead to is an Error that
/// ends the session; one that it could not make, after an absence, is believed, and not recomputed.
class ModelSource {
 public:
  struct Sums {
    Digest initial{};          ///< of the model that round 1 begins with
    std::uint64_t bytes = 0;   ///< of one
    std::uint32_t rounds = 0;  ///< of the plan: no model is further than so many sums from the first
  };
  struct Wanted {
    Digest model{};
    std::uint64_t bytes = 0;
    std::uint32_t round = 0;  ///< that it is for; after the last one: the next number
    std::vector<transport::ModelPatch> patches;
  };
  struct Here {};  ///< held() is what was wanted
  struct Get {     ///< give the bytes to arrived()
    Digest blob{};
    std::uint64_t bytes = 0;
  };
  using Next = std::variant<Here, Get, Patch>;

  /// Call once, before any model. kept: of an earlier run of this site in the same job.
  void make_from_sums(const Sums& sums, std::optional<HeldModel> kept);
  bool makes() const { return sums_.has_value(); }
  /// Whether the plan has such a round.
  bool has_round(std::uint32_t round) const { return round > 0 && (!sums_ || round <= sums_->rounds); }

  const HeldModel& held() const { return held_; }
  bool wants(const Digest& model) const { return coming_ && coming_->model == model; }
  /// From now on this one, whatever was on its way. Error: kRefused.
  Result<Next> want(Wanted wanted);
  Result<Next> arrived(Bytes blob);
  Result<Next> patched(Patched answer);
  /// A patch that is on its way is not to be had.
  bool patching() const { return coming_ && !path_.empty(); }
  Next whole();
  void give_up() { coming_.reset(); }
  /// Enough others made this model. True: the held one counts as recomputed from now on.
  bool vouched(const Digest& model);

 private:
  bool follows(const transport::ModelPatch& patch, std::uint32_t after, std::uint64_t bytes_before) const;
  std::vector<transport::ModelPatch> path() const;
  Next next_patch() const;
  Next take(transport::Blob model, bool recomputed);

  std::optional<Sums> sums_;
  HeldModel held_;
  std::optional<Wanted> coming_;
  std::vector<transport::ModelPatch> path_;  ///< from the held model to it; empty: it comes whole
  std::vector<Bytes> deltas_;                ///< those of the path that are here
};

}  // namespace preceptor::node
