// What Python gives, as the core takes it.

#ifndef KCONV_PYTHON_ARGUMENTS_H_
#define KCONV_PYTHON_ARGUMENTS_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "conv.h"
#include "cpu.h"

namespace kconv {

namespace py = pybind11;

using Sizes = std::vector<int64_t>;

inline std::string Repr(const py::handle& object) {
  return py::str(py::repr(object)).cast<std::string>();
}

// The enumerator of a name, or a ValueError that lists the names.
template <typename Enum>
Enum Parse(const char* argument, const std::string& name,
           const std::vector<std::pair<const char*, Enum>>& names) {
  std::string known;
  for (const auto& [candidate, value] : names) {
    if (name == candidate) return value;
    known += (known.empty() ? "\"" : ", \"") + std::string(candidate) + "\"";
  }
  throw py::value_error(std::string(argument) + " must be one of " + known +
                        ". Received: " + argument + "=" + name);
}

inline Pass ParsePass(const std::string& name) {
  return Parse<Pass>("pass_", name,
                     {{"forward", Pass::kForward},
                      {"input_gradient", Pass::kInputGradient},
                      {"filter_gradient", Pass::kFilterGradient}});
}

inline DType ParseDType(const std::string& name) {
  return Parse<DType>("dtype", name,
                      {{"float32", DType::kFloat32},
                       {"float64", DType::kFloat64},
                       {"bfloat16", DType::kBFloat16},
                       {"float16", DType::kFloat16}});
}

inline Activation ParseActivation(const std::string& name) {
  return Parse<Activation>("activation", name,
                           {{"linear", Activation::kNone},
                            {"relu", Activation::kRelu},
                            {"relu6", Activation::kRelu6}});
}

inline Isa IsaOf(const std::string& name) {
  if (name.empty()) return BestIsa();
  for (Isa isa : UsableIsas()) {
    if (name == IsaName(isa)) return isa;
  }
  throw py::value_error(
      "isa must be one of kconv's usable instruction sets. "
      "Received: isa=" +
      name);
}

// How a run is asked for.
inline void CheckRun(int threads, int64_t guard) {
  if (threads < 1 || threads > 1024) {
    throw py::value_error("threads must be from 1 to 1024. Received: threads=" +
                          std::to_string(threads));
  }
  if (guard < 0 || guard > (1 << 20)) {
    throw py::value_error("guard must be from 0 to 1048576. Received: guard=" +
                          std::to_string(guard));
  }
}

// Memory between two runs of canary bytes.
class GuardedBuffer {
 public:
  GuardedBuffer(int64_t bytes, int64_t guard) : bytes_(bytes), guard_(guard) {
    const int64_t all = bytes + 2 * guard + 128;
    memory_.reset(static_cast<unsigned char*>(
        ::operator new(static_cast<size_t>(all), std::align_val_t(64))));
    std::memset(memory_.get(), kCanary, static_cast<size_t>(all));
  }

  void* data() { return Begin(); }

  bool Intact() const {
    // The guard before the data reaches to its aligned start.
    for (const unsigned char* p = memory_.get(); p != Begin(); ++p) {
      if (*p != kCanary) return false;
    }
    for (int64_t i = 0; i < guard_; ++i) {
      if (Begin()[bytes_ + i] != kCanary) return false;
    }
    return true;
  }

 private:
  static constexpr unsigned char kCanary = 0xA5;
  struct Free {
    void operator()(unsigned char* p) const {
      ::operator delete(p, std::align_val_t(64));
    }
  };
  unsigned char* Begin() const {
    return memory_.get() + (guard_ + 63) / 64 * 64;
  }

  std::unique_ptr<unsigned char, Free> memory_;
  int64_t bytes_;
  int64_t guard_;
};

}  // namespace kconv

#endif  // KCONV_PYTHON_ARGUMENTS_H_
