// Products with the matrices of F(m, r), known to the compiler: on vectors of a
// CPU, or on the numbers of a thread of a GPU.

#ifndef KCONV_ALGORITHMS_WINOGRAD_LINEAR_H_
#define KCONV_ALGORITHMS_WINOGRAD_LINEAR_H_

#include "algorithms/winograd/matrices.h"
#include "cuda/host_device.h"

// Vectors must stay in registers from one step of a transform to the next.
#define KCONV_INLINE __attribute__((always_inline)) inline

namespace kconv::winograd {
namespace {

// The first of the points that come in pairs +a, -a, whose rows (of G and B^T)
// or columns (of A^T) differ by the sign of the odd half. Before them is zero,
// where the number of points is even, and behind them infinity.
template <int kPoints>
constexpr int kFirstPair = kPoints % 2 == 0;

// An element of a matrix. Device code cannot call At itself.
template <typename Matrix, int i, int j>
constexpr double kElement = Matrix::At(i, j);

// The three matrices of F(m, r) as types.
template <typename Table>
struct InputMatrix {
  static constexpr int kRows = Table::kPoints;
  static constexpr int kColumns = Table::kPoints;
  static constexpr bool kPairedRows = true;
  static constexpr double At(int i, int j) { return Table::kBt[i][j]; }
};

template <typename Table, int kTaps>
struct FilterMatrix {
  static constexpr int kRows = Table::kPoints;
  static constexpr int kColumns = kTaps;
  static constexpr bool kPairedRows = true;
  static constexpr double At(int i, int j) { return Table::kG[i][j]; }
};

template <typename Table, int kOutputs>
struct OutputMatrix {
  static constexpr int kRows = kOutputs;
  static constexpr int kColumns = Table::kPoints;
  static constexpr bool kPairedRows = false;
  static constexpr double At(int i, int j) { return Table::kAt[i][j]; }
};

// sum + row i of the matrix, elements j, j + step, ... times x. Zeros and
// ones, known to the compiler, cost nothing.
template <typename Matrix, int i, int j, int step, typename Vector>
KCONV_HOST_DEVICE KCONV_INLINE Vector AddRow(const Vector* x, Vector sum) {
  if constexpr (j >= Matrix::kColumns) {
    return sum;
  } else {
    constexpr double value = kElement<Matrix, i, j>;
    if constexpr (value == 1) {
      sum += x[j];
    } else if constexpr (value == -1) {
      sum -= x[j];
    } else if constexpr (value != 0) {
      sum += x[j] * static_cast<float>(value);
    }
    return AddRow<Matrix, i, j + step, step>(x, sum);
  }
}

// The same without a sum to begin with: no addition to zero.
template <typename Matrix, int i, int j, int step, typename Vector>
KCONV_HOST_DEVICE KCONV_INLINE Vector Row(const Vector* x) {
  if constexpr (j >= Matrix::kColumns) {
    return Vector{};
  } else {
    constexpr double value = kElement<Matrix, i, j>;
    if constexpr (value == 0) {
      return Row<Matrix, i, j + step, step>(x);
    } else {
      Vector first;
      if constexpr (value == 1) {
        first = x[j];
      } else {
        first = x[j] * static_cast<float>(value);
      }
      return AddRow<Matrix, i, j + step, step>(x, first);
    }
  }
}

// y = Matrix x.
template <typename Matrix, int i = 0, typename Vector>
KCONV_HOST_DEVICE KCONV_INLINE void Rows(const Vector* x, Vector* y) {
  if constexpr (i < Matrix::kRows) {
    if constexpr (Matrix::kPairedRows && i >= kFirstPair<Matrix::kRows> &&
                  i + 2 < Matrix::kRows) {
      const Vector even = Row<Matrix, i, 0, 2>(x);
      const Vector odd = Row<Matrix, i, 1, 2>(x);
      y[i] = even + odd;
      y[i + 1] = even - odd;
      Rows<Matrix, i + 2>(x, y);
    } else {
      y[i] = Row<Matrix, i, 0, 1>(x);
      Rows<Matrix, i + 1>(x, y);
    }
  }
}

// For columns in pairs: the even rows take the sums of x's pairs, the odd rows
// their differences.
template <typename Matrix>
struct Folded {
  static constexpr int kRows = Matrix::kRows;
  static constexpr int kColumns = Matrix::kColumns;
  static constexpr bool kPairedRows = false;
  static constexpr double At(int i, int j) {
    const int place = j - kFirstPair<kColumns>;  // among the pairs
    if (place < 0 || j == kColumns - 1) return Matrix::At(i, j);
    // The first column of a pair now holds its sum, the second the difference.
    return place % 2 == i % 2 ? Matrix::At(i, j - place % 2) : 0;
  }
};

// The sums and the differences of pairs.
template <int kColumns, int j, typename Vector>
KCONV_HOST_DEVICE KCONV_INLINE void Fold(const Vector* x, Vector* folded) {
  if constexpr (j + 1 < kColumns) {
    folded[j] = x[j] + x[j + 1];
    folded[j + 1] = x[j] - x[j + 1];
    Fold<kColumns, j + 2>(x, folded);
  }
}

template <typename Matrix, typename Vector>
KCONV_HOST_DEVICE KCONV_INLINE void Apply(const Vector* x, Vector* y) {
  if constexpr (Matrix::kPairedRows) {
    Rows<Matrix>(x, y);
  } else {
    constexpr int n = Matrix::kColumns;
    Vector folded[n];
    folded[0] = x[0];
    folded[n - 1] = x[n - 1];
    Fold<n, kFirstPair<n>>(x, folded);
    Rows<Folded<Matrix>>(folded, y);
  }
}

}  // namespace
}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_LINEAR_H_
