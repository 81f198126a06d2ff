#include "cpu.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace kconv {
namespace {

#ifdef KCONV_X86_KERNELS
// Compilers that do not know its name for __builtin_cpu_supports are in use.
bool HasF16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

bool Supported(Isa isa) {
  if (isa == Isa::kBaseline) return true;
#ifdef KCONV_X86_KERNELS
  __builtin_cpu_init();
  if (isa == Isa::kAvx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           HasF16c();
  }
  return Supported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw");
#else
  return false;
#endif
}

std::vector<Isa> FindUsableIsas() {
  Isa limit = Isa::kAvx512;
  // An unknown name lowers nothing: it must not cost anyone their speed, and
  // Python, which can warn, does.
  if (const char* name = std::getenv("KCONV_MAX_ISA")) ParseIsa(name, &limit);
  std::vector<Isa> usable;
  for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= limit && Supported(isa)) usable.push_back(isa);
  }
  return usable;
}

#ifdef __x86_64__
// Four letters of the vendor's name, as cpuid.h has them; 0 where it has none.
unsigned int Vendor() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0, &a, &b, &c, &d) == 0 ? 0 : b;
}
#endif

bool IsIntel() {
#ifdef __x86_64__
  return Vendor() == signature_INTEL_ebx;
#else
  return false;
#endif
}

// Of the processors with AVX-512 those that take 512 bits in two halves. Zen 3,
// of the same family, has no AVX-512.
bool IsZen4() {
#ifdef __x86_64__
  unsigned int a = 0, b = 0, c = 0, d = 0;
  if (Vendor() != signature_AMD_ebx || __get_cpuid(1, &a, &b, &c, &d) == 0) {
    return false;
  }
  const unsigned int family = (a >> 8 & 0xf) + (a >> 20 & 0xff);
  return family == 0x19;
#else
  return false;
#endif
}

// First word of a file, or the empty string.
std::string ReadWord(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

// "512K" -> 524288; 0 where there is no number.
int64_t ParseBytes(const std::string& text) {
  std::istringstream in(text);
  int64_t number = 0;
  char unit = ' ';
  in >> number >> unit;
  if (unit == 'K') number <<= 10;
  if (unit == 'M') number <<= 20;
  return number;
}

Cpu FindCpu() {
  // Typical server values, kept where the system does not tell.
  Cpu cpu = {32 << 10, 512 << 10, 16 << 20, 3.0e9, IsZen4(), IsIntel()};
  const std::string root = "/sys/devices/system/cpu/cpu0/";
  for (int i = 0; i < 8; ++i) {
    const std::string cache = root + "cache/index" + std::to_string(i) + "/";
    const std::string level = ReadWord(cache + "level");
    if (level.empty()) break;
    if (ReadWord(cache + "type") == "Instruction") continue;
    const int64_t bytes = ParseBytes(ReadWord(cache + "size"));
    if (bytes <= 0) continue;
    if (level == "1") cpu.l1d_bytes = bytes;
    if (level == "2") cpu.l2_bytes = bytes;
    if (level == "3") cpu.l3_bytes = bytes;
  }
  const int64_t khz =
      std::atoll(ReadWord(root + "cpufreq/cpuinfo_max_freq").c_str());
  if (khz > 0) cpu.frequency = 1e3 * static_cast<double>(khz);
  return cpu;
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kBaseline:
      break;
  }
  return kBaselineName;
}

bool ParseIsa(const std::string& name, Isa* isa) {
  for (Isa candidate : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (name == IsaName(candidate)) {
      *isa = candidate;
      return true;
    }
  }
  return false;
}

const std::vector<Isa>& UsableIsas() {
  static const std::vector<Isa> usable = FindUsableIsas();
  return usable;
}

double Cpu::PeakMacs(Isa isa, int64_t bytes) const {
  // Vectors of 16, 32 or 64 bytes, two multiply-adds a cycle; SSE2 has no fused
  // one and takes two instructions for each.
  const double vector = isa == Isa::kBaseline ? 8 : 32 * Widening(isa);
  return frequency * 2 * vector / static_cast<double>(bytes);
}

double Cpu::Widening(Isa isa) const {
  return isa == Isa::kAvx512 && !halves_avx512 ? 2 : 1;
}

const Cpu& ThisCpu() {
  static const Cpu cpu = FindCpu();
  return cpu;
}

}  // namespace kconv
