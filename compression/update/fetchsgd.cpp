#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "common/options.h"
#include "compression/update/passes.h"
#include "compression/update/selection.h"
#include "compression/update/transform.h"

namespace preceptor::compression {
namespace {

constexpr int kMaxRows = 15;

struct FetchSgdOptions {
  int rows = 5;            ///< of the sketch: estimates are medians of so many; odd
  double ratio = 8;        ///< floats of the update for one of the sketch, at least
  double fraction = 0.01;  ///< of the model's values that change in a round
  double momentum = 0.9;   ///< of the coordinator, in the sketch
  template <class V>
  void visit(V& v) {
    v("rows", rows, Range{1, kMaxRows});
    v("ratio", ratio, Range{1, 1e6});
    v("fraction", fraction, Range{1e-9, 1});
    v("momentum", momentum, Range{0, 0.999});
  }
};

/// Table [rows, 2^bits] that adds each value, with a sign, to one cell a row (Charikar 2002,
/// doi:10.1016/S0304-3975(03)00400-6). Cell and sign of value i are the upper bits of a i + b mod
/// 2^64, pairwise independent for i < 2^32 (Dietzfelbinger 1996). The same at every site.
class CountSketch {
 public:
  CountSketch(std::size_t rows, unsigned bits) : bits_(bits) {
    RandomStream random(0, "count sketch");
    for (std::size_t row = 0; row < rows; ++row)
      hashes_.push_back({random.bits64(), random.bits64()});
  }
  std::size_t size() const { return hashes_.size() << bits_; }

  /// table += sketch of values at places 0, 1, …: a row at a time, which is all that a core's cache
  /// need hold.
  void add(std::span<float> table, std::span<const float> values) const {
    for (std::size_t row = 0; row < hashes_.size(); ++row)
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto [cell, sign] = place(row, i);
        table[cell] += signed_by(sign, values[i]);
      }
  }
  /// table += sketch of value at place i.
  void add(std::span<float> table, std::size_t i, float value) const {
    for (std::size_t row = 0; row < hashes_.size(); ++row) {
      const auto [cell, sign] = place(row, i);
      table[cell] += signed_by(sign, value);
    }
  }

  /// Of places first, first + 1, …: the medians of their cells. table: finite.
  void estimate(std::span<const float> table, std::size_t first, std::span<float> out) const {
    constexpr std::size_t kBlock = 256;
    std::array<std::array<float, kBlock>, kMaxRows> seen{};
    for (; !out.empty(); first += kBlock) {
      const auto count = std::min(kBlock, out.size());
      for (std::size_t row = 0; row < hashes_.size(); ++row)
        for (std::size_t i = 0; i < count; ++i) {
          const auto [cell, sign] = place(row, first + i);
          seen[row][i] = signed_by(sign, table[cell]);
        }
      sort_columns<kBlock>(std::span(seen).first(hashes_.size()));
      std::copy_n(seen[hashes_.size() / 2].begin(), count, out.begin());
      out = out.subspan(count);
    }
  }
  float estimate(std::span<const float> table, std::size_t i) const {
    std::array<std::array<float, 1>, kMaxRows> seen{};
    for (std::size_t row = 0; row < hashes_.size(); ++row) {
      const auto [cell, sign] = place(row, i);
      seen[row][0] = signed_by(sign, table[cell]);
    }
    sort_columns<1>(std::span(seen).first(hashes_.size()));
    return seen[hashes_.size() / 2][0];
  }

 private:
  struct Hash {
    std::uint64_t a, b;
  };
  struct Place {
    std::size_t cell;
    std::uint32_t sign;  ///< at bit 31: of a float
  };
  Place place(std::size_t row, std::size_t i) const {
    const auto h = (hashes_[row].a * i + hashes_[row].b) >> (63 - bits_);
    return {row << bits_ | h >> 1, std::uint32_t(h) << 31};
  }
  /// Without a branch, which no processor could foresee.
  static float signed_by(std::uint32_t sign, float value) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ sign);
  }
  /// Odd-even transposition: neighbouring rows are put in order, as many times as there are rows.
  template <std::size_t kColumns>
  static void sort_columns(std::span<std::array<float, kColumns>> rows) {
    for (std::size_t pass = 0; pass < rows.size(); ++pass)
      for (std::size_t row = pass % 2; row + 1 < rows.size(); row += 2)
        for (std::size_t i = 0; i < kColumns; ++i) {
          const auto a = rows[row][i], b = rows[row + 1][i];
          rows[row][i] = std::min(a, b), rows[row + 1][i] = std::max(a, b);
        }
  }

  std::vector<Hash> hashes_;
  unsigned bits_;
};

/// FetchSGD (Rothchild 2020, arXiv:2007.07682): a site sends a count sketch of its update and keeps
/// nothing. Sketches add up; momentum and error feedback are the coordinator's, in the sketch: u =
/// momentum u + mean, e = e + u, then the k largest estimates from e are the round's update and are
/// taken off e. They are read again as they are taken, the largest first: of two values in one cell
/// the second does not take what the first has taken, which would let e grow without bound. The
/// sketch needs several cells a row for each value that changes. memory: u, then e.
class FetchSgd : public Transform {
 public:
  FetchSgd(const FetchSgdOptions& options, std::size_t floats, unsigned bits)
      : sketch_(std::size_t(options.rows), bits),
        floats_(floats),
        kept_(std::size_t(std::ceil(options.fraction * double(floats)))),
        momentum_(float(options.momentum)) {}

  std::size_t coded_size() const override { return floats_ == 0 ? 0 : sketch_.size(); }
  bool linear() const override { return true; }

  std::vector<float> encode(std::span<const float> update, std::uint64_t, Memory&) const override {
    std::vector<float> table(coded_size());
    sketch_.add(table, update);
    return table;
  }

  Result<void> decode(std::span<const float> coded, Memory& memory,
                      const Fold& fold) const override {
    if (floats_ == 0) return {};
    if (memory.size() != 2 * coded.size()) memory.assign(2 * coded.size(), 0.0f);
    const auto u = std::span(memory).first(coded.size());
    const auto e = std::span(memory).subspan(coded.size());
    multiply_add(u, momentum_, coded);
    add(e, u);
    if (!all_finite(e))
      return fail(Code::kInvalid, "fetchsgd: the rounds' sketches add up to what is not finite");
    std::vector<float> estimates(floats_);
    sketch_.estimate(e, 0, estimates);
    auto places = largest_places(estimates, kept_);
    std::ranges::stable_sort(
        places, [&](auto a, auto b) { return std::abs(estimates[a]) > std::abs(estimates[b]); });
    std::vector<float> update(floats_);
    for (const auto i : places) {
      update[i] = sketch_.estimate(e, i);
      sketch_.add(e, i, -update[i]);
    }
    return fold(0, update);
  }

 private:
  CountSketch sketch_;
  std::size_t floats_, kept_;
  float momentum_;
};

const RegisterTransform kFetchSgd{
    "fetchsgd",
    [](const CodecSettings& settings,
       const std::vector<Piece>& pieces) -> Result<std::unique_ptr<Transform>> {
      const auto options = TRY(read_settings<FetchSgdOptions>(settings, "fetchsgd"));
      if (options.rows % 2 == 0)
        return fail(Code::kInvalid, "fetchsgd: rows: {} is not odd", options.rows);
      std::size_t floats = 0;
      for (const auto& piece : pieces) floats += piece.size;
      if (floats >> 32 != 0)
        return fail(Code::kInvalid, "fetchsgd: {} values; at most 2^32 have a place", floats);
      const auto columns = double(floats) / options.ratio / options.rows;
      const auto bits = columns < 1 ? 0 : unsigned(std::bit_width(std::uint64_t(columns)) - 1);
      return std::make_unique<FetchSgd>(options, floats, bits);
    }};

}  // namespace
}  // namespace preceptor::compression
