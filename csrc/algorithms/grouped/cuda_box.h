// Boxes of images in shared memory, for the grouped kernels of the GPU.

#ifndef KCONV_ALGORITHMS_GROUPED_CUDA_BOX_H_
#define KCONV_ALGORITHMS_GROUPED_CUDA_BOX_H_

#include <cstdint>

#include "conv.h"
#include "cuda/divisor.h"
#include "cuda/host_device.h"
#include "cuda/words.h"
#include "split.h"

namespace kconv::grouped {

// Four channels of a pixel.
struct alignas(16) CudaFour {
  float value[4];
};

// An image in device memory, of the channels of all groups.
struct CudaImage {
  int64_t image;       // elements from one to the next
  int pixel, channel;  // the same
  int batch, height, width;
  int of_group;  // channels
  bool last;     // channels
  bool quads;    // four channels, a multiple of 4 from a group's first, at once

  CudaImage() = default;
  CudaImage(const ConvShape& s, bool input) {
    last = s.layout == Layout::kChannelsLast;
    const int64_t channels = input ? s.in_channels : s.out_channels;
    const int64_t pixels = input ? s.InputPixels() : s.OutputPixels();
    image = channels * pixels;
    pixel = static_cast<int>(last ? channels : 1);
    channel = static_cast<int>(last ? 1 : pixels);
    batch = static_cast<int>(s.batch);
    height = static_cast<int>((input ? s.input : s.output)[1]);
    width = static_cast<int>((input ? s.input : s.output)[2]);
    of_group = static_cast<int>(channels / s.groups);
    quads = last && of_group % 4 == 0;
  }
};

// Pixels of some groups, as [group][four of channels][image][row][column].
// Channels of a group that fill no four are followed by zeros.
struct CudaBox {
  int rows = 0, columns = 0, fours = 0;
  // Fours of channels from one [image][row][column] to the next: odd, so that
  // those of one pixel lie in different banks.
  int plane = 0;
  int all = 0;  // to load
  cuda::Divisor by_columns, by_rows, by_images, by_fours, by_planes;

  CudaBox() = default;
  CudaBox(int images, int rows, int columns, int channels, int groups)
      : rows(rows),
        columns(columns),
        fours(static_cast<int>(CeilDivide(channels, 4))),
        plane(images * rows * columns | 1),
        all(groups * fours * images * rows * columns),
        by_columns(columns),
        by_rows(rows),
        by_images(images),
        by_fours(fours),
        by_planes(int64_t{groups} * fours) {}

  int64_t Bytes() const {
    return int64_t{plane} * static_cast<int64_t>(by_planes.divisor) * 16;
  }
};

// Where a box lies in an image.
struct CudaCorner {
  int image;          // the first one
  int group, groups;  // the first one, and how many there are from it on
  int y, x;
};

// Loads a box, zeros for what is not there, by the threads of a block together:
// those side by side load what lies side by side.
KCONV_HOST_DEVICE inline void LoadCudaBox(const void* from, cuda::Type type,
                                          const CudaImage& image,
                                          const CudaCorner& corner,
                                          const CudaBox& box, int index,
                                          int threads, CudaFour* to) {
  constexpr int kOnTheWay = 6;
  const int64_t first = int64_t{corner.image} * image.image +
                        int64_t{corner.group} * image.of_group * image.channel;
  for (int begin = index; begin < box.all; begin += kOnTheWay * threads) {
    cuda::Quad quad[kOnTheWay];
    int place[kOnTheWay];
    KCONV_UNROLL
    for (int i = 0; i < kOnTheWay; ++i) {
      quad[i] = cuda::Quad{};
      place[i] = -1;
      int rest = begin + i * threads;
      if (rest >= box.all) break;
      int plane = 0;
      if (image.last) plane = box.by_planes.Split(&rest);
      const int column = box.by_columns.Split(&rest);
      const int row = box.by_rows.Split(&rest);
      const int of_box = box.by_images.Split(&rest);
      if (!image.last) plane = rest;
      place[i] =
          plane * box.plane + (of_box * box.rows + row) * box.columns + column;

      int group = plane;
      const int channel = box.by_fours.Split(&group) * 4;
      const int y = corner.y + row, x = corner.x + column;
      if (group >= corner.groups || corner.image + of_box >= image.batch ||
          y < 0 || y >= image.height || x < 0 || x >= image.width) {
        continue;
      }
      const int64_t at =
          first + of_box * image.image +
          (int64_t{y} * image.width + x) * image.pixel +
          int64_t{group * image.of_group + channel} * image.channel;
      if (image.quads) {
        cuda::LoadQuad(from, at, type.half, &quad[i]);
        continue;
      }
      KCONV_UNROLL
      for (int k = 0; k < 4; ++k) {
        if (channel + k >= image.of_group) break;
        quad[i].word[k] =
            cuda::LoadBits(from, at + int64_t{k} * image.channel, type.half);
      }
    }
    KCONV_UNROLL
    for (int i = 0; i < kOnTheWay; ++i) {
      if (place[i] < 0) break;
      CudaFour four;
      KCONV_UNROLL
      for (int k = 0; k < 4; ++k) {
        four.value[k] = image.quads
                            ? cuda::WidenOf(quad[i], k, type)
                            : cuda::WidenBits(quad[i].word[k], type.dtype);
      }
      to[place[i]] = four;
    }
  }
}

}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_CUDA_BOX_H_
