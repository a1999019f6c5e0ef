#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/torch.h>

#include "models/kernels/dispatch.h"
#include "models/kernels/kernels.h"

/// The kernels as operators of LibTorch's dispatcher, so that a traced network names them instead of their insides.
namespace preceptor::models::kernels {

TORCH_LIBRARY(preceptor, library) {
  library.def("selective_scan(Tensor u, Tensor delta, Tensor a, Tensor b, Tensor c, Tensor skip, Tensor delta_bias, Tensor order) -> Tensor",
              selective_scan);
  library.def("bi_wkv(Tensor decay, Tensor first, Tensor k, Tensor v) -> Tensor", bi_wkv);
}

bool tracing() { return torch::jit::tracer::isTracing(); }

at::Tensor call(const char* name, at::TensorList inputs) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  torch::jit::Stack stack(inputs.begin(), inputs.end());
  op.callBoxed(stack);
  return stack[0].toTensor();
}

}  // namespace preceptor::models::kernels
