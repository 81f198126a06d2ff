// Addresses at which a GPU would fail, after which its process cannot use it
// any more.

#ifndef KCONV_CUDA_ADDRESSES_H_
#define KCONV_CUDA_ADDRESSES_H_

#include <cstdint>
#include <initializer_list>

namespace kconv::cuda {

struct Placed {
  const void* at;
  int64_t elements;
};

// Null, or a sentence. Elements have `size` bytes.
inline const char* AddressError(std::initializer_list<Placed> tensors,
                                int64_t size, const void* workspace) {
  for (const Placed& tensor : tensors) {
    if (tensor.elements == 0) continue;
    if (tensor.at == nullptr) {
      return "A tensor that is not empty needs an address. Received: null";
    }
    if (reinterpret_cast<uintptr_t>(tensor.at) % static_cast<uintptr_t>(size) !=
        0) {
      return "Tensors must be aligned to their elements.";
    }
  }
  if (reinterpret_cast<uintptr_t>(workspace) % 16 != 0) {
    return "The workspace must be aligned to 16 bytes.";
  }
  return nullptr;
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_ADDRESSES_H_
