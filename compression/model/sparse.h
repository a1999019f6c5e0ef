#pragma once
#include "compression/model/channels.h"
#include "training/training.h"

/// What acts on the weights while a network trains: hooks of training::train.
namespace preceptor::compression {

/// Pulls whole groups towards zero, the least important units hardest, so that pruning them later costs little (DepGraph,
/// Fang 2023, arXiv:2301.12900): adds λ γ w to the gradient of each weight w of unit k, with I_k the squares of its weights and
///   γ_k = 2^(α (I_max − I_k) / (I_max − I_min)).
class GroupSparsity : public training::StepHook {
 public:
  struct Options {
    double strength = 1e-4;  ///< λ
    double alpha = 4;        ///< the weakest unit is pulled 2^α times as hard as the strongest
    template <class V>
    void visit(V& v) {
      v("strength", strength, Range{0, 1});
      v("alpha", alpha, Range{0, 16});
    }
  };
  GroupSparsity(std::vector<Group> groups, const Options& options) : groups_(std::move(groups)), options_(options) {}
  void before_step(models::FlatModel& model, double progress) override;

 private:
  std::vector<Group> groups_;
  Options options_;
};

/// Masks of single weights by magnitude, that become denser along the cubic schedule (Zhu 2017, arXiv:1710.01878)
///   s(t) = s_f (1 − (1 − t/T)³),  T = `ramp` of the whole training, and stay for its rest.
/// Weights are zero after every step. They are stored as zeros: files and updates compress better, nothing runs faster.
struct MaskOptions {
  std::string pattern = "unstructured";  ///< or N:M, "2:4": of each M weights in a row of a layer, N stay (Zhou 2021, arXiv:2102.04010)
  double sparsity = 0.8;                 ///< s_f of each layer, unstructured; an N:M pattern has its own, 1 − N/M
  double ramp = 0.5;                     ///< share of the training after which it is reached; 0: from the first step on
  template <class V>
  void visit(V& v) {
    v("pattern", pattern);
    v("sparsity", sparsity, Range{0, 0.999});
    v("ramp", ramp, Range{0, 1});
  }
};

class WeightMask : public training::StepHook {
 public:
  /// Error: kInvalid for a pattern that is neither "unstructured" nor N:M with 0 < N < M ≤ 64.
  static Result<WeightMask> create(const MaskOptions& options);
  void after_step(models::FlatModel& model, double progress) override { apply(model, progress); }
  /// Zeros the weights that are too small at this progress, 0 … 1, of the training; at 1, all that are to go.
  void apply(models::FlatModel& model, double progress) const;

 private:
  WeightMask(const MaskOptions& options, std::int64_t n, std::int64_t m) : options_(options), n_(n), m_(m) {}
  MaskOptions options_;
  std::int64_t n_, m_;  ///< 0: unstructured
};

/// Share of zeros among weights, 0 … 1. Biases, norms and statistics do not count.
double zeros(models::FlatModel& model);

}  // namespace preceptor::compression
