#pragma once
#include <cmath>

#include "models/linear/layers.h"

namespace preceptor::models {

/// First values of a selective state space (Gu 2023, arXiv:2312.00752). a_log […, N]: a = −1 … −N in every channel;
/// skip: ones; the time step's weight […, R]: U(±R^−½), which keeps the variance; its bias: softplus of it is a time
/// step of e^U[ln 0.001, ln 0.1], so that a state forgets within ten to a thousand tokens.
inline void start_state_space(const torch::Tensor& a_log, const torch::Tensor& skip, const torch::Tensor& step_weight,
                              const torch::Tensor& step_bias, RandomStream& random) {
  const auto states = a_log.size(-1);
  set_values(a_log, [&](auto i) { return std::log(double(1 + i % states)); });
  skip.fill_(1);
  draw_uniform(step_weight, 1 / std::sqrt(double(step_weight.size(-1))), random);
  set_values(step_bias, [&](auto) {
    const double step = std::max(std::exp(random.uniform(std::log(1e-3), std::log(1e-1))), 1e-4);
    return step + std::log(-std::expm1(-step));  // the inverse of softplus
  });
}

}  // namespace preceptor::models
