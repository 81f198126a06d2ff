// The lengths that there are transforms of. Plain constants, also for the files
// that are compiled for an instruction set.

#ifndef KCONV_ALGORITHMS_FFT_SIZES_H_
#define KCONV_ALGORITHMS_FFT_SIZES_H_

namespace kconv::fft {

constexpr int kSizeCount = 8;
constexpr int kSizes[kSizeCount] = {1, 16, 24, 32, 48, 64, 96, 128};
constexpr int kMaxSize = 128;

// The factors of a length, one for each pass over the data.
constexpr int kMaxPasses = 3;
constexpr int kRadices[kSizeCount][kMaxPasses] = {
    {1, 1, 1}, {4, 4, 1}, {4, 6, 1}, {8, 4, 1},
    {8, 6, 1}, {8, 8, 1}, {4, 4, 6}, {8, 4, 4}};

}  // namespace kconv::fft

#endif  // KCONV_ALGORITHMS_FFT_SIZES_H_
