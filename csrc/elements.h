// From a type that is known when the program runs to one that the compiler
// knows.

#ifndef KCONV_ELEMENTS_H_
#define KCONV_ELEMENTS_H_

#include "conv.h"
#include "half.h"

namespace kconv {

// Calls body with a value of the element type, of which it takes the type only.
template <typename Body>
void WithElement(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat64:
      return body(double{});
    case DType::kBFloat16:
      return body(BFloat16{});
    case DType::kFloat16:
      return body(Float16{});
  }
}

}  // namespace kconv

#endif  // KCONV_ELEMENTS_H_
