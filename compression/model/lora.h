#pragma once
#include "models/flat_model.h"

/// Low-rank additions that train in place of the network (LoRA, Hu 2021, arXiv:2106.09685), and become part of it after.
namespace preceptor::compression {

struct LoraOptions {
  int rank = 0;                     ///< of each addition, and of no layer more than it has channels; 0: no LoRA
  std::vector<std::string> layers;  ///< those whose names begin so; empty: all
  template <class V>
  void visit(V& v) {
    v("rank", rank, Range{0, 4096});
    v("layers", layers);
  }
};

/// The same function, with an addition up(down(x)) at each layer chosen. "lora_down" is drawn from
/// RandomStream(seed, "lora/<layer>"), N(0, 1/fan-in), and stays; "lora_up" is zero and trains, the head with it, and batch
/// norms' statistics move. All else is frozen: it neither trains nor travels in updates. Grouped convolutions and the head
/// get none. A network with branches is fused.
/// Errors: kInvalid: rank 0, LoRA layers already, no layer to add to.
Result<models::FlatModel> add_lora(models::FlatModel& model, const LoraOptions& options, std::uint64_t seed);

/// The additions as part of the weights: the plain network, within float32's rounding the same function. A copy where
/// there are none. Weights of int8 layers are rounded anew where they are used.
Result<models::FlatModel> merge_lora(models::FlatModel& model);

}  // namespace preceptor::compression
