#include <torch/torch.h>

#include "models/kernels/kernels.h"

namespace preceptor::models::kernels {

at::Tensor selective_scan(const at::Tensor& u, const at::Tensor& delta, const at::Tensor& a, const at::Tensor& b,
                          const at::Tensor& c, const at::Tensor& skip, const at::Tensor& delta_bias, const at::Tensor& order) {
  return selective_scan_reference(u, delta, a, b, c, skip, delta_bias, order);
}

at::Tensor bi_wkv(const at::Tensor& decay, const at::Tensor& first, const at::Tensor& k, const at::Tensor& v) {
  return bi_wkv_reference(decay, first, k, v);
}

std::string target() { return "reference"; }

}  // namespace preceptor::models::kernels
