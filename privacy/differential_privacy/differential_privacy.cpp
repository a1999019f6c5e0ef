#include "privacy/differential_privacy/differential_privacy.h"

#include <algorithm>
#include <cmath>

namespace preceptor::privacy {

Mechanism local_round(const DifferentialPrivacyOptions& options, int epochs) {
  const auto steps = std::uint64_t(std::max(1ll, std::llround(1 / options.sampling_rate)));
  return {Noise::kGaussian, options.sampling_rate, options.noise_multiplier, {}, steps * std::uint64_t(epochs)};
}

Mechanism distributed_round(const DifferentialPrivacyOptions& options) {
  const double rate = options.of_records() ? options.sampling_rate : 1;
  const auto noise = options.noise == "skellam" ? Noise::kSkellam : Noise::kDiscreteGaussian;
  // Words of 1e6 steps: rounding and the shape of the noise count for nothing.
  return {noise, rate, 1, {options.noise_multiplier * 1e6, 1, 1e6, 1e6, 1}, 1};
}

Mechanism nominal_round(const DifferentialPrivacyOptions& options, int epochs) {
  return options.distributed() ? distributed_round(options) : local_round(options, epochs);
}

Result<void> derive_noise(DifferentialPrivacyOptions& options, int rounds, int epochs) {
  if (!options.on() || options.noise_multiplier > 0) return {};
  auto trial = options;
  Result<double> multiplier;
  if (options.distributed()) {
    multiplier = calibrate(options.epsilon, [&](double sigma) {
      trial.noise_multiplier = sigma;
      auto round = distributed_round(trial);
      round.steps *= std::uint64_t(rounds);
      return epsilon_spent({round}, options.delta).epsilon;
    });
  } else {
    multiplier = calibrate_gaussian(options.epsilon, options.delta, options.sampling_rate, local_round(trial, epochs).steps * std::uint64_t(rounds));
  }
  if (!multiplier) return in("privacy.differential_privacy", multiplier.error());
  options.noise_multiplier = *multiplier;
  return {};
}

bool spends_no_more(Mechanism actual, Mechanism promised, int rounds, double delta) {
  actual.steps *= std::uint64_t(rounds);
  promised.steps *= std::uint64_t(rounds);
  return rdp_spent({actual}, delta).epsilon <= rdp_spent({promised}, delta).epsilon * (1 + 1e-9);
}

double PrivacyLimits::delta(std::uint64_t records) const {
  const double most = 1 / (10 * double(std::max<std::uint64_t>(records, 1)));
  return delta_max > 0 ? std::min(delta_max, most) : most;
}

Result<void> check_limits(const DifferentialPrivacyOptions& options, const PrivacyLimits& limits, std::uint64_t records) {
  if (!options.on()) {
    if (!limits.required) return {};
    return fail(Code::kRefused, "it has no differential privacy; limits.privacy.required is true: set privacy.differential_privacy.mode");
  }
  if (options.delta > limits.delta(records))
    return fail(Code::kRefused, "privacy.differential_privacy.delta is {:g}; limits.privacy.delta_max and 1/(10 · {} records) allow {:g}",
                options.delta, records, limits.delta(records));
  if (!(options.noise_multiplier > 0))
    return fail(Code::kRefused, "privacy.differential_privacy.noise_multiplier is 0: a plan says how much noise there is");
  if (options.distributed() && options.honest > limits.honest_max)
    return fail(Code::kRefused, "it counts on the noise of {} nodes; limits.privacy.honest_max is {}", options.honest, limits.honest_max);
  return {};
}

}  // namespace preceptor::privacy
