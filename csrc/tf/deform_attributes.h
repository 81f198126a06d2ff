// The attributes of the deformable ops, and the DeformShape that these and the
// tensors' sizes make.

#ifndef KCONV_TF_DEFORM_ATTRIBUTES_H_
#define KCONV_TF_DEFORM_ATTRIBUTES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "deformable/deformable.h"
#include "tf/attributes.h"

namespace kconv::tf {

struct DeformAttributes {
  Attributes conv;
  int64_t offset_groups = 1;
  int64_t num_mask = 0;

  // Context: OpKernelConstruction or InferenceContext.
  template <typename Context>
  absl::Status Read(Context* ctx) {
    absl::Status status = ctx->GetAttr("offset_groups", &offset_groups);
    status.Update(ctx->GetAttr("num_mask", &num_mask));
    if (status.ok()) status = conv.ReadWindow(ctx);
    return status.ok() ? Check() : status;
  }

  // The whole shape, from full sizes of the input and the filter.
  absl::Status Shape(absl::Span<const int64_t> input,
                     absl::Span<const int64_t> filter,
                     DeformShape* shape) const;

 private:
  absl::Status Check() const;
};

// The sizes of the tensors that a shape determines.
std::vector<int64_t> OutputSizes(const DeformShape& shape);
std::vector<int64_t> OffsetsSizes(const DeformShape& shape);
std::vector<int64_t> MaskSizes(const DeformShape& shape);

// That tensor `name` has not the shape that it must have.
absl::Status SizesError(const char* name, const std::string& wanted,
                        const std::string& received);

}  // namespace kconv::tf

#endif  // KCONV_TF_DEFORM_ATTRIBUTES_H_
