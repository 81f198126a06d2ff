// How the work of the forward pass and the input gradient is cut.

#ifndef KCONV_ALGORITHMS_WINOGRAD_IMAGE_PLAN_H_
#define KCONV_ALGORITHMS_WINOGRAD_IMAGE_PLAN_H_

#include "algorithms/winograd/blocking.h"
#include "algorithms/winograd/tiling.h"
#include "algorithms/winograd/transforms.h"
#include "conv.h"
#include "gemm/gemm.h"
#include "split.h"

namespace kconv::winograd {

// image_pass.cc tells of the two ways, fused and shared.
struct ImagePlan {
  const GemmKernel<float>& kernel;
  Tiling tiling;
  const Transforms& transforms;
  bool backwards;
  bool finishes;  // whether there is an epilogue
  int64_t groups;
  int64_t variants;
  int64_t channels;  // of a group of the source
  int64_t planes;
  int64_t tiles;  // of a variant
  int64_t outer_taps;
  Split chunks;   // channels of one tap
  Split columns;  // of a group
  // Each set of tiles has a V of its own, which meets all parts: a set is a
  // group and, unless they share V, a variant; a part is a block of columns
  // and, if they do, a variant.
  int64_t sets;
  int64_t parts;
  bool fused;
  int64_t block;   // tiles whose V lies together
  Split blocks;    // of all tiles
  int64_t shared;  // blocks whose V is there at a time
  int64_t batch;   // blocks of one task

  ImagePlan(int outputs, const Problem& problem, Isa isa);

  // What a set and a part of it stand for.
  struct Piece {
    int64_t group;
    int64_t variant;
    int64_t part;  // block of columns
  };
  Piece PieceAt(int64_t set, int64_t part) const {
    return {set % groups, set / groups + part / columns.count,
            part % columns.count};
  }

  int64_t ChunkCount() const { return outer_taps * chunks.count; }
  int64_t OuterTap(int64_t chunk) const { return chunk / chunks.count; }
  // Whether the outer tap of a chunk is met.
  bool Meets(const Piece& piece, int64_t chunk) const {
    return tiling.Taps(piece.variant, OuterTap(chunk)).columns > 0;
  }
  int64_t Width() const { return RoundUp(columns.size, kernel.lanes); }

  // V of one block and chunk: [planes][block][channels of the chunk].
  int64_t VRow() const { return RoundUp(chunks.size, kLineFloats); }
  int64_t VPlane() const { return PlaneStride(block * VRow()); }
  int64_t VSize() const { return planes * VPlane(); }
  // U of one chunk and block of columns: [planes][panels].
  int64_t UPlane() const { return PlaneStride(chunks.size * Width()); }
  int64_t USize() const { return planes * UPlane(); }
  // M of one block and block of columns: [planes][block][columns].
  int64_t MPlane() const { return PlaneStride(block * Width()); }
  int64_t MSize() const { return planes * MPlane(); }

 private:
  void Cut();
};

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_IMAGE_PLAN_H_
