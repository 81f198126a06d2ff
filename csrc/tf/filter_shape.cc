#include "tf/filter_shape.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "registry.h"

namespace kconv::tf {

absl::Status FilterAttributes::Check() const {
  if (groups < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("groups must be positive. Received: groups=", groups));
  }
  if (Named(algorithm).empty()) {
    std::string error;
    Resolve(algorithm, Problem(), Terms(), &error);
    return absl::InvalidArgumentError(error);
  }
  return absl::OkStatus();
}

absl::Status FilterAttributes::Shape(absl::Span<const int64_t> filter,
                                     ConvShape* shape) const {
  const int dims = static_cast<int>(filter.size()) - 2;
  if (dims < 1 || dims > kMaxSpatialDims) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The kernel must have three to five dimensions. Received: shape=(",
        absl::StrJoin(filter, ", "), ")"));
  }
  if (!strides.empty() && static_cast<int>(strides.size()) != dims) {
    return absl::InvalidArgumentError(absl::StrCat(
        "strides must have one value for each spatial dimension. Received: "
        "strides=[",
        absl::StrJoin(strides, ", "), "]"));
  }
  *shape = ConvShape();
  shape->spatial_dims = dims;
  shape->groups = groups;
  shape->out_channels = filter[dims + 1];
  if (__builtin_mul_overflow(filter[dims], groups, &shape->in_channels)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The kernel has too many channels. Received: groups=", groups));
  }
  for (int i = 0; i < dims; ++i) {
    const int at = kMaxSpatialDims - dims + i;
    shape->kernel[at] = shape->input[at] = filter[i];
    if (!strides.empty()) shape->stride[at] = strides[i];
  }
  const std::string error = CompleteShape(shape);
  return error.empty() ? absl::OkStatus() : absl::InvalidArgumentError(error);
}

absl::Status PreparedShapeError(const std::string& shape) {
  return absl::InvalidArgumentError(
      absl::StrCat("prepared must be a vector. Received: shape=", shape));
}

absl::Status CheckNumPrepared(int64_t num_prepared) {
  if (num_prepared >= 0 && num_prepared <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "There may be one prepared filter or none. Received: num_prepared=",
      num_prepared));
}

}  // namespace kconv::tf
