// Where a deformable convolution reads an image, and with which weights: the
// arithmetic that the kernels of every device share.
//
// Plain functions of internal linkage, for files compiled for an instruction
// set and for CUDA.

#ifndef KCONV_DEFORMABLE_SAMPLING_H_
#define KCONV_DEFORMABLE_SAMPLING_H_

#include <stdint.h>

#ifdef __CUDACC__
#define KCONV_INLINE static __host__ __device__ __forceinline__
#else
#define KCONV_INLINE static inline
#endif

namespace kconv::deformable {

// The two spatial dimensions of a DeformShape, height before width.
struct Window {
  int64_t input[2], output[2], kernel[2], stride[2], dilation[2], pad[2];
  int64_t channels;  // of the input, and from one of its pixels to the next
  int64_t offset_groups;
  int64_t offset_group_channels;
};

// The corners of the cell that a point lies in: 0 upper left, 1 upper right, 2
// lower left, 3 lower right.
inline constexpr int kCorners = 4;

// A point of the plane, among the pixels of an image.
template <typename T>
struct Sample {
  int64_t at;      // number of the pixel at corner 0, which may lie outside
  T y, x;          // from corner 0 to the point; NaN where a coordinate is
  T mask;          // what the value is multiplied by
  int32_t inside;  // bit i: corner i lies in the image. None: value 0, or NaN
};

// The largest integer that is not above a number of moderate size.
template <typename T>
KCONV_INLINE int64_t Floor(T x) {
  const int64_t truncated = static_cast<int64_t>(x);
  return truncated - (static_cast<T>(truncated) > x);
}

// 1 if it is, else 0, without a branch or a byte.
KCONV_INLINE int32_t IsNegative(int64_t x) {
  return static_cast<int32_t>(static_cast<uint64_t>(x) >> 63);
}

// The point (y, x) of an image whose first pixel has the number `first`. A
// coordinate becomes an integer only where it is known to be small enough: no
// offset, be it huge, infinite or NaN, makes an address.
template <typename T>
KCONV_INLINE Sample<T> Locate(T y, T x, T mask, int64_t height, int64_t width,
                              int64_t first) {
  Sample<T> s = {first, 0, 0, mask, 0};
  if (y > T(-1) && y < static_cast<T>(height) && x > T(-1) &&
      x < static_cast<T>(width)) {
    const int64_t row = Floor(y), column = Floor(x);
    s.at = first + row * width + column;
    s.y = y - static_cast<T>(row);
    s.x = x - static_cast<T>(column);
    // row is from -1 to height - 1, column alike: bits 0 and 2 for the rows of
    // corners, times 0 and 1 for their columns.
    const int32_t rows = 1 - IsNegative(row) + 4 * IsNegative(row + 1 - height);
    const int32_t columns =
        1 - IsNegative(column) + 2 * IsNegative(column + 1 - width);
    s.inside = rows * columns;
  } else if (y != y || x != x) {
    s.y = s.x = y + x;
  }
  return s;
}

// Whether a coordinate was NaN. If it was not and no corner is inside, the
// value is 0 and every derivative as well.
template <typename T>
KCONV_INLINE bool IsNan(const Sample<T>& s) {
  return s.y != s.y;
}

// The weights of the corners.
template <typename T>
KCONV_INLINE void CornerWeights(const Sample<T>& s, T* weight) {
  weight[0] = (1 - s.y) * (1 - s.x);
  weight[1] = (1 - s.y) * s.x;
  weight[2] = s.y * (1 - s.x);
  weight[3] = s.y * s.x;
}

// Whether corner i is read. One whose weight is 0 is not: an infinite neighbour
// must not spoil the value of a point that lies on a pixel.
template <typename T>
KCONV_INLINE bool IsRead(const Sample<T>& s, const T* weight, int i) {
  return (s.inside >> i & 1) && weight[i] != 0;
}

KCONV_INLINE int64_t CornerPixel(int64_t at, int i, int64_t width) {
  return at + (i >> 1) * width + (i & 1);
}

// a * b, but 0 where a is, whatever b is: b was not read.
template <typename T>
KCONV_INLINE T Weighted(T a, T b) {
  return a == 0 ? T(0) : a * b;
}

// Adds a point's gradients to those by dy, by dx and by the mask. `dot` holds,
// for each corner, the sum over channels of the pixel there, 0 outside, times
// the gradient by the value; the mask in neither.
template <typename T>
KCONV_INLINE void AddPointGradients(const Sample<T>& s, const T* weight,
                                    const T* dot, T* gradient) {
  T corner[kCorners], value = 0;
  for (int i = 0; i < kCorners; ++i) {
    corner[i] = s.inside >> i & 1 ? dot[i] : T(0);
    value += Weighted(weight[i], corner[i]);
  }
  gradient[0] += s.mask * (Weighted(1 - s.x, corner[2] - corner[0]) +
                           Weighted(s.x, corner[3] - corner[1]));
  gradient[1] += s.mask * (Weighted(1 - s.y, corner[1] - corner[0]) +
                           Weighted(s.y, corner[3] - corner[2]));
  gradient[2] += value;
}

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_SAMPLING_H_
