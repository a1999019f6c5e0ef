#pragma once
#include "data/dataset.h"
#include "models/flat_model.h"

/// Post-training quantisation to int8: weights by output channel, inputs by tensor (models::Rounding has the arithmetic).
namespace preceptor::compression {

struct QuantiseOptions {
  std::string calibration = "percentile";  ///< bounds of inputs: minmax, percentile, mse (the least squared error)
  double percentile = 99.99;               ///< of values within the bounds, either side
  int images = 256;                        ///< of the calibration set, evenly spread over it; 100 to 500 do
  bool equalise = false;                   ///< cross-layer equalisation first; weights by channel rarely need it
  bool bias_correction = true;             ///< kept where it makes the logits' error smaller
  double budget = 0.1;                     ///< the logits' error at most; the most sensitive layers stay in float for it
  std::string rounding = "observed";       ///< what fine-tuning then does with the inputs' steps: observed, learned (LSQ)
  std::vector<std::string> keep;           ///< layers in float: those whose names begin so
  template <class V>
  void visit(V& v) {
    v("calibration", calibration, OneOf{"minmax", "percentile", "mse"});
    v("percentile", percentile, Range{50, 100});
    v("images", images, Range{2, 100000});
    v("equalise", equalise);
    v("bias_correction", bias_correction);
    v("budget", budget, Range{0, 1000});
    v("rounding", rounding, OneOf{"observed", "learned"});
    v("keep", keep);
  }
};

/// What was measured of one layer. The logits' error here and below: root mean square of their change over the calibration
/// images, relative to the float logits' standard deviation.
struct QuantisedLayer {
  std::string layer;
  std::size_t weights = 0;
  double error = 0;    ///< with this layer alone in int8
  bool int8 = false;   ///< false: it stays in float
};

struct QuantisedModel {
  models::FlatModel model;             ///< structure.int8 set, weights on their grid, "input_range" filled
  std::vector<QuantisedLayer> layers;  ///< the most sensitive first
  double error = 0;                    ///< of all that is int8 together
  int equalised = 0;                   ///< pairs of layers
};

/// Batch norms need no folding first: a factor for each output channel leaves the codes as they are. A network with
/// branches is fused. Candidates are all convolutions and linear layers that the network calls; each is measured alone,
/// then as few as needed of the most sensitive stay in float. Runs on LibTorch's threads as they are set.
/// Errors: kInvalid: an empty calibration set, one for another task; a network that is quantised already, or has LoRA.
Result<QuantisedModel> quantise(models::FlatModel& model, const data::Dataset& calibration, const QuantiseOptions& options);

}  // namespace preceptor::compression
