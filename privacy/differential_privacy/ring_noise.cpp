#include "privacy/differential_privacy/ring_noise.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace preceptor::privacy {

Result<RingNoise> RingNoise::create(Noise noise, double total_deviation, std::uint32_t honest) {
  if (noise == Noise::kGaussian) throw std::invalid_argument("noise in a ring is of integers");
  if (honest == 0) return fail(Code::kInvalid, "noise that no node adds: at least one honest node is to be counted on");
  const auto variance = TRY(fraction_at_least(total_deviation * total_deviation / honest));
  auto sampler = noise == Noise::kSkellam ? TRY(skellam(variance)) : TRY(discrete_gaussian(variance));
  return RingNoise(noise, honest, std::move(sampler));
}

Mechanism RingNoise::mechanism(double l2, double l1, double dimension, double sampling_rate) const {
  return {noise_, sampling_rate, 1, {share(), honest_, l2, l1, dimension}, 1};
}

Result<void> RingNoise::add(std::span<std::uint32_t> words, int ring_bits, RandomSource& source) const {
  if (ring_bits < 2 || ring_bits > 32) throw std::invalid_argument("2 to 32 bits a word");
  const auto mask = ~std::uint32_t{0} >> (32 - ring_bits);
  std::array<std::int64_t, 4096> tile;
  for (std::size_t first = 0; first < words.size(); first += tile.size()) {
    const auto part = words.subspan(first, std::min(tile.size(), words.size() - first));
    TRY(sampler_->sample(source, std::span(tile).first(part.size())));
    for (std::size_t i = 0; i < part.size(); ++i) part[i] = (part[i] + std::uint32_t(tile[i])) & mask;
  }
  OPENSSL_cleanse(tile.data(), sizeof tile);
  return {};
}

double ring_room(double nodes, double weight, double limit, double deviation) { return nodes * weight * limit + 6 * deviation; }

Result<int> ring_bits_for(double room) {
  for (int bits = 2; bits <= 32; ++bits)
    if (std::ldexp(1, bits - 1) > room) return bits;
  return fail(Code::kInvalid, "sums reach {:.0f}, beyond words of 32 bits: fewer bits, fewer nodes or less noise", room);
}

Result<void> check_ring(int ring_bits, double room) {
  if (std::ldexp(1, ring_bits - 1) > room) return {};
  return fail(Code::kInvalid, "sums reach {:.0f}, and words of {} bits hold less than {:.0f}: more ring bits, fewer bits, fewer nodes or less noise",
              room, ring_bits, std::ldexp(1, ring_bits - 1));
}

}  // namespace preceptor::privacy
