#include "models/kernels/dispatch.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <mutex>

#include "common/log.h"
#include "models/kernels/kernels.h"
#include "models/kernels/selective_scan_simd.h"

namespace preceptor::models::kernels {
namespace {
thread_local int references = 0;
}

UseReference::UseReference() { ++references; }
UseReference::~UseReference() { --references; }
bool UseReference::active() { return references > 0; }

std::string target() {
  static std::once_flag logged;
  const std::string name = simd_target();
  std::call_once(logged, [&] { spdlog::info("kernels for {}", name); });
  return name;
}

bool serve(at::TensorList tensors) {
  if (UseReference::active()) return false;
  for (const auto& x : tensors)
    if (!x.device().is_cpu() || x.scalar_type() != torch::kFloat32) return false;
  target();
  return true;
}

bool wants_gradient(at::TensorList tensors) {
  const auto one = [](const torch::Tensor& x) { return x.requires_grad(); };
  return torch::GradMode::is_enabled() && std::any_of(tensors.begin(), tensors.end(), one);
}

void for_channels(std::int64_t batch, std::int64_t channels, const Work& work) {
  const auto groups = padded(channels) / kPad;
  at::parallel_for(0, batch * groups, 1, [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {
      const auto b = begin / groups, stop = std::min(end, (b + 1) * groups);
      work(b, (begin - b * groups) * kPad, std::min((stop - b * groups) * kPad, channels));
      begin = stop;
    }
  });
}

at::Tensor pad(const at::Tensor& x) {
  return torch::constant_pad_nd(x, {0, padded(x.size(-1)) - x.size(-1)}).contiguous();
}

}  // namespace preceptor::models::kernels
