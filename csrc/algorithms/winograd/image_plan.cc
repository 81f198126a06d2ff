#include "algorithms/winograd/image_plan.h"

#include <algorithm>

namespace kconv::winograd {
namespace {

// The two ways meet where U, made once and written to memory, costs as much as
// U made again for each kBatchTiles tiles: from so many tiles on, and so many
// more for each MiB of U, the fused way is faster (Zen 3).
constexpr int64_t kFusedTiles = 96;
constexpr int64_t kFusedTilesPerMib = 12;
constexpr int64_t kMaxUFloats = (int64_t{64} << 20) / 4;
// Tiles of a fused block, so that U is read often enough from the cache ...
constexpr int64_t kMinFusedBlock = 24;
constexpr int64_t kMaxBlock = 48;
// ... and its channels: V of more would leave the second-level cache by far.
constexpr int64_t kMaxFusedDepth = 1024;
constexpr int64_t kFusedChunk = 128;

// Tiles that repay the making of U.
constexpr int64_t kBatchTiles = 96;

}  // namespace

ImagePlan::ImagePlan(int outputs, const Problem& problem, Isa isa)
    : kernel(GemmKernelFor<float>(isa)),
      tiling(problem.shape, problem.pass, outputs),
      transforms(*FindTransforms(isa, outputs, tiling.taps, tiling.dims())),
      backwards(tiling.backwards),
      finishes(!problem.epilogue.Empty()),
      groups(problem.shape.groups),
      variants(tiling.Variants()),
      channels(backwards ? problem.shape.GroupOutChannels()
                         : problem.shape.GroupInChannels()),
      planes(tiling.Planes()),
      tiles(tiling.Count()),
      outer_taps(tiling.OuterTaps()) {
  const int64_t result_channels = backwards ? problem.shape.GroupInChannels()
                                            : problem.shape.GroupOutChannels();
  const int64_t width = BlockColumns(kernel);
  columns =
      Split(result_channels, CeilDivide(result_channels, width), kernel.panel);
  const bool share = tiling.VariantsShareSource();
  sets = groups * (share ? 1 : variants);
  parts = columns.count * (share ? variants : 1);
  Cut();
}

void ImagePlan::Cut() {
  chunks = Split(channels, CeilDivide(channels, kFusedChunk), kLineFloats);
  const int64_t u_floats = sets * parts * ChunkCount() * USize();
  fused = ChunkCount() * VRow() <= kMaxFusedDepth && u_floats <= kMaxUFloats &&
          tiles >= kFusedTiles + (u_floats >> 18) * kFusedTilesPerMib;
  if (!fused) {
    chunks = Split(channels, CeilDivide(channels, kChunk), kLineFloats);
  }
  const int64_t v_floats = planes * chunks.count * VRow() * outer_taps;
  int64_t most = TilesThatFit(kMaxBlock, sets * v_floats);
  if (fused) {
    // V and M of a block in three quarters of the second-level cache.
    const int64_t fit = CacheFloats() * 3 / 4 / (v_floats + planes * Width());
    most = std::clamp(fit / kTileUnit * kTileUnit, kMinFusedBlock, kMaxBlock);
  }
  blocks = Split(tiles, CeilDivide(tiles, most), kTileUnit / 2);
  block = std::clamp<int64_t>(tiles, 1, blocks.size);
  shared = batch = 1;
  if (fused) return;
  const int64_t room = kSharedFloats / (sets * ChunkCount() * VSize());
  shared = Split(blocks.count,
                 CeilDivide(blocks.count, std::max<int64_t>(1, room)), 1)
               .size;
  // As many blocks a task as leave enough tasks, but enough for U to pay.
  const int64_t tasks = sets * parts;
  batch = std::max(Split(shared, CeilDivide(kWantedTasks, tasks), 1).size,
                   std::min(shared, CeilDivide(kBatchTiles, block)));
}

}  // namespace kconv::winograd
