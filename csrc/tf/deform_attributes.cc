#include "tf/deform_attributes.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace kconv::tf {
namespace {

std::vector<int64_t> OfOutputPixels(const DeformShape& shape,
                                    int64_t channels) {
  const ConvShape& s = shape.conv;
  return {s.batch, s.output[kMaxSpatialDims - 2], s.output[kMaxSpatialDims - 1],
          channels};
}

}  // namespace

absl::Status DeformAttributes::Check() const {
  if (conv.spatial_dims() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "strides of a deformable convolution must have two values. Received: "
        "strides=[",
        absl::StrJoin(conv.strides, ", "), "]"));
  }
  if (offset_groups < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset_groups must be positive. Received: offset_groups=",
                     offset_groups));
  }
  if (num_mask < 0 || num_mask > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "There may be one mask or none. Received: num_mask=", num_mask));
  }
  return absl::OkStatus();
}

absl::Status DeformAttributes::Shape(absl::Span<const int64_t> input,
                                     absl::Span<const int64_t> filter,
                                     DeformShape* shape) const {
  const absl::Status status = conv.Shape(input, filter, &shape->conv);
  if (!status.ok()) return status;
  shape->offset_groups = offset_groups;
  const std::string error = CompleteDeformShape(shape);
  return error.empty() ? absl::OkStatus() : absl::InvalidArgumentError(error);
}

std::vector<int64_t> OutputSizes(const DeformShape& shape) {
  return OfOutputPixels(shape, shape.conv.out_channels);
}
std::vector<int64_t> OffsetsSizes(const DeformShape& shape) {
  return OfOutputPixels(shape, 2 * shape.Points());
}
std::vector<int64_t> MaskSizes(const DeformShape& shape) {
  return OfOutputPixels(shape, shape.Points());
}

absl::Status SizesError(const char* name, const std::string& wanted,
                        const std::string& received) {
  return absl::InvalidArgumentError(absl::StrCat(
      name, " must have shape ", wanted, ". Received: shape=", received));
}

}  // namespace kconv::tf
