#include "deploy/kernels/gemm.h"

#include "deploy/kernels/simd_targets.h"

#include <algorithm>
#include <array>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deploy/kernels/gemm.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "deploy/kernels/epilogue-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::deploy::kernels::HWY_NAMESPACE {
namespace {

constexpr int kVectors = int(kPanel / std::int64_t(kLanes));  // of a panel
// Sums that stay in registers: of 32 with AVX-512, of 16 elsewhere, some are for the operands. Tall tiles rather than wide
// ones: the right matrix streams through from the second cache, and each of its vectors serves all rows of a tile. Only when
// the rows are long do so many of them crowd the first cache.
constexpr int kMaxPanels = kLanes == 16 ? 3 : 1;
constexpr int rows_of(int panels) { return kLanes == 16 ? (panels == 3 ? 8 : 14) : kLanes == 8 ? 6 : 3; }
constexpr std::int64_t kLong = 256;
constexpr std::int64_t kAhead = 16;  // columns' values that are fetched before their turn

struct Product {
  const float *values, *bias;
  std::int64_t taps, depth, columns;
  const TapRows<float>& rows;
  const Epilogue& epilogue;
};

/// R rows from `first` on times P panels from `panel` on.
template <int R, int P>
void tile(const Product& p, std::int64_t first, std::int64_t panel) {
  constexpr int N = P * kVectors;
  const auto length = p.taps * p.depth, stride = length * kPanel;
  const float* right = p.values + panel * stride;
  V sums[R][N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    const V bias = load(p.bias + panel * kPanel + n * std::int64_t(kLanes));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r][n] = bias;
  }
  const std::int32_t* offsets = p.rows.offsets + first * p.taps;
  for (std::int64_t tap = 0; tap < p.taps; ++tap) {
    const float* left[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto offset = offsets[r * p.taps + tap];
      left[r] = offset == kOutside ? p.rows.outside : p.rows.base + offset;
    }
    for (std::int64_t k = 0; k < p.depth; ++k, right += kPanel) {
#pragma GCC unroll 8
      for (int n = 0; n < P; ++n) __builtin_prefetch(right + n * stride + kAhead * kPanel);
      V columns[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) columns[n] = load(right + n / kVectors * stride + n % kVectors * std::int64_t(kLanes));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const V x = set(left[r][k]);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[r][n] = hn::MulAdd(x, columns[n], sums[r][n]);
      }
    }
  }
  finish(p.epilogue, sums, first, panel * kPanel, p.columns);
}

/// All rows, in tiles of about the same height.
template <int P>
void all_rows(const Product& p, std::int64_t panel) {
  using Tile = void (*)(const Product&, std::int64_t, std::int64_t);
  constexpr int kRows = rows_of(P);
  static constexpr auto kTiles = []<int... R>(std::integer_sequence<int, R...>) { return std::array<Tile, sizeof...(R)>{tile<R + 1, P>...}; }(
      std::make_integer_sequence<int, kRows>());
  const auto count = p.rows.count, tiles = (count + kRows - 1) / kRows;
  for (std::int64_t i = 0; i < tiles; ++i) {
    const auto row = count * i / tiles;
    kTiles[std::size_t(count * (i + 1) / tiles - row - 1)](p, row, panel);
  }
}

void gemm(const float* values, const float* bias, std::int64_t taps, std::int64_t depth, std::int64_t columns, const TapRows<float>& rows,
          const Epilogue& epilogue) {
  const Product p{values, bias, taps, depth, columns, rows, epilogue};
  const auto all = panels(columns), most = std::int64_t(kMaxPanels == 1 ? 1 : taps == 1 && depth >= kLong ? 3 : 2);
  for (std::int64_t panel = 0; panel < all; panel += most) {
    switch (std::min(most, all - panel)) {
      case 1: all_rows<1>(p, panel); break;
#if HWY_TARGET <= HWY_AVX3
      case 2: all_rows<2>(p, panel); break;
      case 3: all_rows<3>(p, panel); break;
#endif
    }
  }
}

}  // namespace
}  // namespace preceptor::deploy::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::deploy::kernels {
namespace {
HWY_EXPORT(gemm);
}

void gemm(const float* values, const float* bias, std::int64_t taps, std::int64_t depth, std::int64_t columns, const TapRows<float>& rows,
          const Epilogue& epilogue) {
  HWY_DYNAMIC_DISPATCH(gemm)(values, bias, taps, depth, columns, rows, epilogue);
}

void pack_into(float* to, const float* from, std::int64_t taps, std::int64_t depth, std::int64_t columns, std::int64_t tap_stride,
               std::int64_t depth_stride, std::int64_t column_stride) {
  for (std::int64_t panel = 0; panel < panels(columns); ++panel) {
    const auto first = panel * kPanel, width = std::min(kPanel, columns - first);
    for (std::int64_t tap = 0; tap < taps; ++tap)
      for (std::int64_t k = 0; k < depth; ++k, to += kPanel) {
        const float* row = from + tap * tap_stride + k * depth_stride + first * column_stride;
        for (std::int64_t i = 0; i < width; ++i) to[i] = row[i * column_stride];
        std::fill(to + width, to + kPanel, 0.f);
      }
  }
}

PackedMatrix pack(const float* from, std::int64_t taps, std::int64_t depth, std::int64_t columns, std::int64_t tap_stride,
                  std::int64_t depth_stride, std::int64_t column_stride, std::span<const float> bias) {
  const auto padded = std::size_t(panels(columns) * kPanel);
  PackedMatrix packed{taps, depth, columns, hwy::AllocateAligned<float>(std::max<std::size_t>(1, padded * std::size_t(taps * depth))),
                      hwy::AllocateAligned<float>(padded)};
  pack_into(packed.values.get(), from, taps, depth, columns, tap_stride, depth_stride, column_stride);
  std::fill_n(packed.bias.get(), padded, 0.f);
  std::ranges::copy(bias, packed.bias.get());
  return packed;
}

}  // namespace preceptor::deploy::kernels
#endif
