#pragma once
#include "models/adaptable.h"
#include "models/flat_model.h"

/// Layers as products of smaller ones: singular values for linear layers and 1×1 convolutions, Tucker-2 for k×k (Kim 2015,
/// arXiv:1511.06530).
namespace preceptor::compression {

struct LowRankOptions {
  double energy = 0.9;            ///< share of each weight's squared norm that is kept; unused with a budget
  double budget = 0;              ///< share of the network's parameters that is left, 0 … 1; 0: energy decides
  int iterations = 2;             ///< of Tucker-2 after its start (higher-order orthogonal iteration)
  int minimum = 1024;             ///< weights of a layer below which it stays
  std::vector<std::string> keep;  ///< layers that stay: those whose names begin so
  template <class V>
  void visit(V& v) {
    v("energy", energy, Range{0.01, 1});
    v("budget", budget, Range{0, 1});
    v("iterations", iterations, Range{0, 100});
    v("minimum", minimum, Range{1, 1e12});
    v("keep", keep);
  }
};

struct LowRankLayer {
  std::string layer;
  models::Ranks ranks;
  double energy = 1;              ///< kept
  std::size_t before = 0, after = 0;  ///< weights
};

struct LowRankModel {
  models::FlatModel model;           ///< structure.low_rank set
  std::vector<LowRankLayer> layers;  ///< those that are factorised now, by name
};

/// A layer is factorised only where that takes fewer weights: for a matrix [m, n] a rank below mn / (m + n). By energy each
/// layer takes the fewest weights that keep it; by budget ranks are chosen so that one price of a weight in lost energy
/// holds for all layers. Grouped convolutions stay. A network with branches is fused.
/// Errors: kInvalid for LoRA or int8 layers (those steps come later), or where the budget cannot be met.
Result<LowRankModel> factorise(models::FlatModel& model, const LowRankOptions& options);

/// Factors of a weight [out, in] or [out, in, h, w], shaped as the layers that Adaptable::factorise makes; `core` only for
/// kernels larger than 1×1. energy: share of the squared norm that their product has.
struct Factors {
  at::Tensor down, core, up;
  double energy = 1;
};
Factors decompose(const at::Tensor& weight, const models::Ranks& ranks, int iterations = 2);

}  // namespace preceptor::compression
