// The processor: instruction sets, caches, frequency.

#ifndef KCONV_CPU_H_
#define KCONV_CPU_H_

#include <cstdint>
#include <string>
#include <vector>

#include "isa.h"

namespace kconv {

// "sse2" (or "portable"), "avx2", "avx512".
const char* IsaName(Isa isa);

// False if there is no such name.
bool ParseIsa(const std::string& name, Isa* isa);

// Compiled in, supported here and not above the environment variable
// KCONV_MAX_ISA; weakest first, never empty.
const std::vector<Isa>& UsableIsas();
inline Isa BestIsa() { return UsableIsas().back(); }

struct Cpu {
  int64_t l1d_bytes;
  int64_t l2_bytes;
  int64_t l3_bytes;
  double frequency;    // Hz
  bool halves_avx512;  // 512 bits take as long as twice 256
  bool is_intel;

  // Multiply-accumulates a second of one core, for elements of `bytes` bytes.
  double PeakMacs(Isa isa, int64_t bytes) const;
  // How many multiply-accumulates take as long as one at AVX2's peak: what
  // takes its time whatever the width of vectors is counted in these.
  double Widening(Isa isa) const;
  // One of two measured figures: with AVX2 or less, and where the peak is
  // wider.
  double Share(Isa isa, double narrow, double wide) const {
    return Widening(isa) > 1 ? wide : narrow;
  }
};

const Cpu& ThisCpu();

}  // namespace kconv

#endif  // KCONV_CPU_H_
