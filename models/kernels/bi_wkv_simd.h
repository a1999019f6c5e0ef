#pragma once
#include <cstdint>

namespace preceptor::models::kernels {

/// One bidirectional WKV attention (kernels.h has the formula). Rows of decay and first are padded to kPad with 0.
struct Wkv {
  std::int64_t batch, length, channels;  ///< B, T, C
  const float *decay, *first;            ///< [P]: w and u, that is already divided by T
  const float *k, *v;                    ///< [B, T, C]
};

/// Sample `b`, channels first … last − 1 (first a multiple of kPad): y, and what the backward pass needs of the denominator,
/// which is e^top / inverse. All [B, T, C]; the last two may be null.
void bi_wkv_forward(const Wkv& wkv, std::int64_t b, std::int64_t first, std::int64_t last, float* y, float* top, float* inverse);

/// The same sample and channels backwards; grad [B, T, C] is that of y.
/// To k and v [B, T, C], decay and first (by w and u) [B, P]: sums over samples are left to the caller.
void bi_wkv_backward(const Wkv& wkv, std::int64_t b, std::int64_t first, std::int64_t last, const float* y, const float* top,
                     const float* inverse, const float* grad, float* to_k, float* to_v, float* to_decay, float* to_first);

}  // namespace preceptor::models::kernels
