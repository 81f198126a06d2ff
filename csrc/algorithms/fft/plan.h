// How the work of a pass is cut, by the problem and the width of vectors, and
// what it takes.

#ifndef KCONV_ALGORITHMS_FFT_PLAN_H_
#define KCONV_ALGORITHMS_FFT_PLAN_H_

#include "algorithms/fft/tiling.h"
#include "conv.h"
#include "split.h"

namespace kconv::fft {

// Bytes that all threads share: across groups, and within them of the filter's
// spectra and of those of the tiles that are read, and of those written.
inline constexpr int64_t kRoom = int64_t{16} << 20;
inline constexpr int64_t kFilterRoom = int64_t{8} << 20;
inline constexpr int64_t kTileRoom = int64_t{24} << 20;

inline constexpr int64_t kMaxLanes = 16;

// Numbers from plane to plane: strides of a power of two would fall into few
// sets of the cache.
inline int64_t PlaneStride(int64_t numbers) {
  return RoundUp(numbers, 16) + 16;
}

// The channels of a group that a pass reads, and those that it writes or, in
// the filter gradient, those of the output.
struct Sides {
  int64_t sources, results;

  explicit Sides(const Problem& problem)
      : sources(problem.shape.GroupInChannels()),
        results(problem.shape.GroupOutChannels()) {
    if (problem.pass == Pass::kInputGradient) std::swap(sources, results);
  }
};

struct Plan {
  Tiling tiling;
  Sides sides;
  int64_t groups;
  int64_t lanes;  // of a vector
  int64_t tiles;  // of all images
  int64_t planes;
  // Whether the lanes of a vector are channels of different groups, else of
  // one.
  bool across_groups = false;

  // Within a group: what lies together at a time.
  Split blocks;   // of tiles
  Split chunks;   // of sources
  Split columns;  // of results

  // Across groups.
  Split vectors;       // of groups
  int64_t slices = 1;  // of tiles, in the filter gradient

  double macs = 0;  // time, in multiply-adds at the peak

  Plan(const Problem& problem, Isa isa);

  // Within a group. In the image passes V, of what is read, is
  // [plane][tile][3][source], U, of the filter, [plane][panels] and M, of what
  // is written, [plane][tile][2][result]. In the filter gradient V is
  // [plane][3][tile][source], U, of the output's gradient, [plane][panels], and
  // M, of the filter, [plane][2][source][result].
  int64_t Width() const { return RoundUp(columns.size, lanes); }
  int64_t VPlane() const { return PlaneStride(3 * blocks.size * chunks.size); }
  int64_t UPlane() const {
    return PlaneStride(2 * Width() * (is_filter_ ? blocks.size : chunks.size));
  }
  int64_t MPlane() const {
    return PlaneStride(2 * Width() * (is_filter_ ? chunks.size : blocks.size));
  }
  // Across groups: numbers of one spectrum.
  int64_t Spectrum() const { return planes * 2 * lanes; }
  // Spectra of the sources of a tile that are there at a time.
  int64_t SourcesAtATime() const {
    return is_filter_ || sides.results > 1 ? sides.sources : 1;
  }

 private:
  void Cut(const Problem& problem);
  void CutWithin();
  void CutAcross();
  double WithinMacs(const Split& blocks, const Split& chunks,
                    const Split& columns) const;

  int64_t sum_bytes_;
  bool is_filter_;
};

}  // namespace kconv::fft

#endif  // KCONV_ALGORITHMS_FFT_PLAN_H_
