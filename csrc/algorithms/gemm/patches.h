// im2col without the matrix: which image elements a convolution's taps meet,
// copied block by block into scratch, or pointed at where they lie.
//
// All passes read an image through a grid of patches. Grid point q and tap t
// meet the pixel q * step + offset(t), zero outside the image:
//   forward, filter gradient   image = input, step = stride,
//                              offset = tap * dilation - pad
//   input gradient             image = gradient of the output. The input pixels
//     of one residue modulo the stride (a phase) meet the same few taps, at
//     step 1; so no zero between strides is ever multiplied.

#ifndef KCONV_ALGORITHMS_GEMM_PATCHES_H_
#define KCONV_ALGORITHMS_GEMM_PATCHES_H_

#include <vector>

#include "conv.h"
#include "half.h"

namespace kconv::gemm {

struct Patches {
  // Taps whose pixels lie side by side in memory, columns of one image row.
  struct Strip {
    int64_t offset[kMaxSpatialDims];  // of the first tap
    int64_t taps;
    int64_t depth_begin;  // index of its first element in the sum
  };

  int64_t channels;        // of a group
  int64_t image_channels;  // of all groups
  int64_t size[kMaxSpatialDims];
  int64_t grid[kMaxSpatialDims];
  int64_t step[kMaxSpatialDims];
  Layout layout;
  std::vector<Strip> strips;
  std::vector<int64_t> filter_taps;  // of each tap, its place in the filter

  int64_t GridPixels() const { return grid[0] * grid[1] * grid[2]; }
  int64_t ImagePixels() const { return size[0] * size[1] * size[2]; }
  // The first strip that reaches past this index of the sum.
  std::vector<Strip>::const_iterator StripAt(int64_t depth) const;
  int64_t Depth() const {
    return static_cast<int64_t>(filter_taps.size()) * channels;
  }
};

// The patches of the input that forward and filter gradient read.
Patches InputPatches(const ConvShape& shape);

// The patches of the output's gradient that the input pixels
// phase + stride * q read, 0 <= phase < stride.
Patches PhasePatches(const ConvShape& shape, const int64_t* phase);

// Copies or points at the patches of one group; `image` is the first element of
// the group's first channel. Grid points are numbered through the batch.
template <typename Element>
class PatchReader {
 public:
  using Sum = SumType<Element>;

  PatchReader(const Patches& patches, const Element* image)
      : patches_(patches), image_(image) {}

  // Channels last: row i of `to` holds elements [begin, end) of the patch at
  // grid point first + i.
  void CopyRows(int64_t first, int64_t rows, int64_t begin, int64_t end,
                Sum* to, int64_t stride) const;

  // Channels last, elements of one strip: points `to` at the same rows where
  // they lie, at `zeros` where they are outside the image; the few that cross
  // its border are copied to rows of `block`.
  void PointAtRows(int64_t first, int64_t rows, int64_t begin, int64_t end,
                   const Element* zeros, Element* block, int64_t stride,
                   const Element** to) const;

  // Channels first: row k of `to` holds element begin + k of the patches at
  // `columns` grid points from `first` on, all in one image.
  void CopyPlanes(int64_t begin, int64_t end, int64_t first, int64_t columns,
                  Sum* to, int64_t stride) const;

 private:
  const Patches& patches_;
  const Element* image_;
};

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_PATCHES_H_
