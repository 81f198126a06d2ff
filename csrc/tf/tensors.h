// What the kernels ask of TensorFlow's tensors.

#ifndef KCONV_TF_TENSORS_H_
#define KCONV_TF_TENSORS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "conv.h"
#include "tensorflow/core/framework/tensor.h"

namespace kconv::tf {

inline DType DTypeOf(tensorflow::DataType type) {
  switch (type) {
    case tensorflow::DT_DOUBLE:
      return DType::kFloat64;
    case tensorflow::DT_BFLOAT16:
      return DType::kBFloat16;
    case tensorflow::DT_HALF:
      return DType::kFloat16;
    default:
      return DType::kFloat32;
  }
}

inline absl::Status ReadSizes(const tensorflow::Tensor& tensor,
                              const char* name, std::vector<int64_t>* sizes) {
  if (tensor.dims() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        name,
        " must be a vector. Received: shape=", tensor.shape().DebugString()));
  }
  for (int64_t i = 0; i < tensor.NumElements(); ++i) {
    sizes->push_back(tensor.dtype() == tensorflow::DT_INT32
                         ? tensor.vec<int32_t>()(i)
                         : tensor.vec<int64_t>()(i));
  }
  return absl::OkStatus();
}

inline std::vector<int64_t> SizesOf(const tensorflow::Tensor& tensor) {
  const auto sizes = tensor.shape().dim_sizes();
  return {sizes.begin(), sizes.end()};
}

}  // namespace kconv::tf

#endif  // KCONV_TF_TENSORS_H_
