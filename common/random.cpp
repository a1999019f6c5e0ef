#include "common/random.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <numeric>
#include <stdexcept>

#include "common/hash.h"
#include "common/philox.h"

namespace preceptor {

RandomStream::RandomStream(std::uint64_t seed, std::string_view name,
                           std::initializer_list<std::uint64_t> indices) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(&seed, 1))).update(name);
  for (const auto index : indices) hash.update("/").update(std::as_bytes(std::span(&index, 1)));
  const auto digest = hash.finish();
  std::memcpy(key_.data(), digest.data(), sizeof key_);
}

std::array<std::uint32_t, 4> RandomStream::philox(std::array<std::uint32_t, 4> c,
                                                  std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const auto p0 = std::uint64_t{0xD2511F53} * c[0];
    const auto p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {std::uint32_t(p1 >> 32) ^ c[1] ^ k[0], std::uint32_t(p1),
         std::uint32_t(p0 >> 32) ^ c[3] ^ k[1], std::uint32_t(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

std::array<std::uint32_t, 4> RandomStream::next_block() {
  const auto block = block_++;
  return philox({std::uint32_t(block), std::uint32_t(block >> 32), 0, 0}, key_);
}

std::uint32_t RandomStream::bits32() {
  if (used_ == 4) {
    buffer_ = next_block();
    used_ = 0;
  }
  return buffer_[used_++];
}

void RandomStream::fill(std::span<std::uint32_t> out) {
  std::size_t i = 0;
  while (i < out.size() && used_ < 4) out[i++] = buffer_[used_++];
  const auto blocks = (out.size() - i) / 4;
  philox_blocks(key_, block_, out.subspan(i, 4 * blocks));
  block_ += blocks;
  i += 4 * blocks;
  while (i < out.size()) out[i++] = bits32();
}

std::uint64_t RandomStream::bits64() {
  const std::uint64_t high = bits32();
  return high << 32 | bits32();
}

double RandomStream::uniform() { return double(bits64() >> 11) * 0x1p-53; }
double RandomStream::uniform(double low, double high) { return low + (high - low) * uniform(); }

std::uint64_t RandomStream::below(std::uint64_t bound) {
  if (bound == 0) throw std::logic_error("RandomStream::below(0)");
  const std::uint64_t limit =
      -bound % bound;  // 2^64 mod bound: values under it would favour small results
  for (;;) {
    const auto x = bits64();
    if (x >= limit) return x % bound;
  }
}

double RandomStream::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

double RandomStream::gamma(double shape) {
  if (shape < 1) return gamma(shape + 1) * std::pow(1.0 - uniform(), 1.0 / shape);
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = normal(), v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(1.0 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
      return d * v;
  }
}

std::vector<std::size_t> RandomStream::permutation(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  shuffle(std::span(order));
  return order;
}

}  // namespace preceptor
