#pragma once
#include "models/flat_model.h"

/// Two repairs of what rounding breaks, without labels or training (Nagel 2019, arXiv:1906.04721).
namespace preceptor::compression {

/// Cross-layer equalisation, in place: where a convolution's output goes through at most a batch norm, then ReLU or
/// pooling, to one convolution alone, channel i is divided by s = √(r₁/r₂) before and multiplied after, so that both
/// layers' weights of that channel have the range √(r₁ r₂). The logits stay as they are. ReLU only: s·f(x/s) = f(x) does not
/// hold for ReLU6, hard-swish or GELU, nor across an addition.
/// Returns how many pairs were equalised. Error: kInvalid where the network cannot be traced.
Result<int> equalise(models::FlatModel& model);

/// Bias correction, in place: the mean of each output channel of each layer that rounds becomes what it is in `exact`, the
/// same network before rounding. Front to back in one pass, so that each layer sees what the corrected ones before it give.
/// The shift goes into the bias, or where there is none into the running mean of the batch norm behind.
/// images: [B, C, S, S], normalised. Error: as equalise.
Result<void> correct_bias(models::FlatModel& rounded, models::FlatModel& exact, const at::Tensor& images);

}  // namespace preceptor::compression
