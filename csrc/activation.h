// The activations that a convolution can apply to what it writes.

#ifndef KCONV_ACTIVATION_H_
#define KCONV_ACTIVATION_H_

namespace kconv {

enum class Activation { kNone, kRelu, kRelu6 };

}  // namespace kconv

#endif  // KCONV_ACTIVATION_H_
