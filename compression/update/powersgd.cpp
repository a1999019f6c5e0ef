#include <algorithm>
#include <cmath>

#include "common/options.h"
#include "compression/update/passes.h"
#include "compression/update/transform.h"

namespace preceptor::compression {
namespace {

struct PowerSgdOptions {
  int rank = 4;  ///< of each matrix; more costs bytes in proportion
  template <class V>
  void visit(V& v) {
    v("rank", rank, Range{1, 1024});
  }
};

/// A piece as a matrix [rows, columns]: an output channel is a row. rank 0: it travels as it is.
struct Matrix {
  std::size_t rows, columns, rank;
  std::size_t size() const { return rows * columns; }
  std::size_t coded() const { return rank == 0 ? size() : rank * (rows + columns); }
};

Matrix matrix_of(const Piece& piece, std::size_t rank) {
  if (piece.shape.size() < 2 || piece.size == 0) return {1, piece.size, 0};
  const auto rows = std::size_t(piece.shape[0]), columns = piece.size / rows;
  rank = std::min({rank, rows, columns});
  if (rank * (rows + columns) >= piece.size) rank = 0;
  return {rows, columns, rank};
}

/// Vectors one after the other become orthonormal, from the first on; one that depends on those
/// before it becomes zero (Gram and Schmidt, each projection taken off twice).
void orthonormalise(std::span<float> vectors, std::size_t count) {
  const auto length = vectors.size() / count;
  for (std::size_t k = 0; k < count; ++k) {
    const auto v = vectors.subspan(k * length, length);
    const auto before = std::sqrt(sum_of_squares(v));
    for (int pass = 0; pass < 2; ++pass)
      for (std::size_t j = 0; j < k; ++j) {
        const auto earlier = vectors.subspan(j * length, length);
        add_scaled(v, -float(dot(v, earlier)), earlier);
      }
    const auto left = std::sqrt(sum_of_squares(v));
    if (left > 1e-5 * before) multiply(v, float(1 / left));
    else std::ranges::fill(v, 0.0f);
  }
}

/// PowerSGD (Vogels 2019, arXiv:1905.13727) with one power iteration an update, which starts from
/// the last update's: of each matrix M travel P = orthonormalised M Q and Q' = M^T P, whose product
/// P Q'^T is M projected on P; Q' is the next update's Q. Its authors average P over the sites
/// before they compute Q'; here each site sends both at once, so that a round stays one message.
/// Pieces of one dimension, and those that it would not make smaller, travel as they are. Biased:
/// use error feedback.
class PowerSgd : public Transform {
 public:
  PowerSgd(const PowerSgdOptions& options, const std::vector<Piece>& pieces) {
    for (const auto& piece : pieces) {
      matrices_.push_back(matrix_of(piece, std::size_t(options.rank)));
      coded_ += matrices_.back().coded();
      basis_ += matrices_.back().rank * matrices_.back().columns;
    }
  }

  std::size_t coded_size() const override { return coded_; }
  bool linear() const override { return false; }

  /// memory: every matrix's Q' of unit columns.
  std::vector<float> encode(std::span<const float> update, std::uint64_t seed,
                            Memory& memory) const override {
    if (memory.size() != basis_) memory.assign(basis_, 0.0f);
    std::vector<float> coded(coded_);
    std::span<float> out = coded, basis = memory;
    std::uint64_t index = 0;
    for (const auto& m : matrices_) {
      const auto part = update.first(m.size());
      if (m.rank == 0) {
        std::ranges::copy(part, out.begin());
      } else {
        const auto q = basis.first(m.rank * m.columns);
        RandomStream random(seed, "powersgd", {index});
        factorise(m, part, q, random, out.first(m.coded()));
        basis = basis.subspan(q.size());
      }
      update = update.subspan(m.size());
      out = out.subspan(m.coded());
      ++index;
    }
    return coded;
  }

  Result<void> decode(std::span<const float> coded, Memory&, const Fold& fold) const override {
    std::size_t offset = 0;
    std::vector<float> row;
    for (const auto& m : matrices_) {
      const auto part = coded.first(m.coded());
      if (m.rank == 0 && m.size() > 0) TRY(fold(offset, part));
      for (std::size_t i = 0; m.rank > 0 && i < m.rows; ++i) {
        row.assign(m.columns, 0.0f);
        for (std::size_t k = 0; k < m.rank; ++k)
          add_scaled(row, part[k * m.rows + i],
                     part.subspan(m.rank * m.rows + k * m.columns, m.columns));
        TRY(fold(offset + i * m.columns, row));
      }
      coded = coded.subspan(m.coded());
      offset += m.size();
    }
    return {};
  }

 private:
  /// q: [rank, columns], replaced. out: P [rank, rows], then Q' [rank, columns].
  static void factorise(const Matrix& m, std::span<const float> values, std::span<float> q,
                        RandomStream& random, std::span<float> out) {
    const auto p = out.first(m.rank * m.rows), next = out.subspan(p.size());
    for (std::size_t k = 0; k < m.rank; ++k) {
      const auto column = q.subspan(k * m.columns, m.columns);
      if (sum_of_squares(column) == 0)  // the first time, or a matrix that had a lower rank
        for (auto& x : column) x = float(random.normal());
    }
    for (std::size_t i = 0; i < m.rows; ++i)
      for (std::size_t k = 0; k < m.rank; ++k)
        p[k * m.rows + i] = float(dot(values.subspan(i * m.columns, m.columns),
                                      q.subspan(k * m.columns, m.columns)));
    orthonormalise(p, m.rank);
    for (std::size_t i = 0; i < m.rows; ++i)
      for (std::size_t k = 0; k < m.rank; ++k)
        add_scaled(next.subspan(k * m.columns, m.columns), p[k * m.rows + i],
                   values.subspan(i * m.columns, m.columns));
    std::ranges::copy(next, q.begin());
    for (std::size_t k = 0; k < m.rank; ++k) {
      const auto column = q.subspan(k * m.columns, m.columns);
      const auto norm = std::sqrt(sum_of_squares(column));
      if (norm > 0) multiply(column, float(1 / norm));
    }
  }

  std::vector<Matrix> matrices_;
  std::size_t coded_ = 0, basis_ = 0;
};

const RegisterTransform kPowerSgd{
    "powersgd",
    [](const CodecSettings& settings,
       const std::vector<Piece>& pieces) -> Result<std::unique_ptr<Transform>> {
      return std::make_unique<PowerSgd>(TRY(read_settings<PowerSgdOptions>(settings, "powersgd")),
                                        pieces);
    }};

}  // namespace
}  // namespace preceptor::compression
