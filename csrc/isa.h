// Instruction sets that kernels are compiled for. Plain enough for the files
// compiled for one.

#ifndef KCONV_ISA_H_
#define KCONV_ISA_H_

// KCONV_PORTABLE leaves AVX2 and AVX-512 out, as on every other machine.
#if defined(__x86_64__) && !defined(KCONV_PORTABLE)
#define KCONV_X86_KERNELS 1
#endif

namespace kconv {

// Weakest first. The baseline is SSE2 on x86-64; elsewhere it is what the
// compiler makes of the same code.
enum class Isa { kBaseline, kAvx2, kAvx512 };

#ifdef KCONV_X86_KERNELS
constexpr char kBaselineName[] = "sse2";
#else
constexpr char kBaselineName[] = "portable";
#endif

}  // namespace kconv

#endif  // KCONV_ISA_H_
