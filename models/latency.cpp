#include "models/latency.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>

namespace preceptor::models {

double milliseconds_per_image(FlatModel& model, int passes) {
  constexpr int kWarmUp = 3;
  const auto& task = model.spec().task;
  at::set_num_threads(1);
  model.network().eval();
  torch::NoGradGuard no_grad;
  model.network().fuse();
  const auto image = torch::zeros({1, task.channels, task.image_size, task.image_size});
  std::vector<double> times;
  for (int i = -kWarmUp; i < passes; ++i) {
    const auto start = std::chrono::steady_clock::now();
    model.forward(image);
    if (i >= 0) times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::nth_element(times, times.begin() + passes / 2);
  return times[std::size_t(passes / 2)];
}

}  // namespace preceptor::models
