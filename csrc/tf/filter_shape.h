// What is known of a filter alone, and of the prepared one.

#ifndef KCONV_TF_FILTER_SHAPE_H_
#define KCONV_TF_FILTER_SHAPE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "conv.h"

namespace kconv::tf {

struct FilterAttributes {
  std::vector<int64_t> strides;  // one for each spatial dimension, or none
  int64_t groups = 1;
  std::string algorithm;

  // Context: OpKernelConstruction or InferenceContext.
  template <typename Context>
  absl::Status Read(Context* ctx) {
    absl::Status status = ctx->GetAttr("strides", &strides);
    status.Update(ctx->GetAttr("groups", &groups));
    status.Update(ctx->GetAttr("algorithm", &algorithm));
    return status.ok() ? Check() : status;
  }

  // Of a convolution by this filter, of an image that it just fits.
  absl::Status Shape(absl::Span<const int64_t> filter, ConvShape* shape) const;

 private:
  absl::Status Check() const;
};

// What is wrong with a prepared filter of this shape.
absl::Status PreparedShapeError(const std::string& shape);

absl::Status CheckNumPrepared(int64_t num_prepared);

// Whether the forward op has one.
template <typename Context>
absl::Status ReadNumPrepared(Context* ctx, int64_t* num_prepared) {
  const absl::Status status = ctx->GetAttr("num_prepared", num_prepared);
  return status.ok() ? CheckNumPrepared(*num_prepared) : status;
}

}  // namespace kconv::tf

#endif  // KCONV_TF_FILTER_SHAPE_H_
