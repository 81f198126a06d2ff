#include "tf/inference.h"

#include "absl/strings/str_cat.h"

namespace kconv::tf {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

std::vector<int64_t> Sizes(InferenceContext* c, ShapeHandle shape) {
  std::vector<int64_t> sizes;
  for (int i = 0; i < c->Rank(shape); ++i) {
    sizes.push_back(c->Value(c->Dim(shape, i)));
  }
  return sizes;
}

absl::Status InferOutput(InferenceContext* c, const Attributes& attributes,
                         ShapeHandle* input, ShapeHandle* filter,
                         ShapeHandle* output) {
  const int rank = attributes.rank();
  const int dims = attributes.spatial_dims();
  const int channel_axis = attributes.channel_axis();
  TF_RETURN_IF_ERROR(c->WithRank(*input, rank, input));
  TF_RETURN_IF_ERROR(c->WithRank(*filter, rank, filter));

  // A kernel without elements, and channels that do not divide.
  for (int i = 0; i < rank; ++i) {
    if (c->Value(c->Dim(*filter, i)) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("The kernel must not be empty. Received: shape=",
                       c->DebugString(*filter)));
    }
  }
  DimensionHandle channels;
  TF_RETURN_IF_ERROR(
      c->Multiply(c->Dim(*filter, dims), attributes.groups, &channels));
  const DimensionHandle given = c->Dim(*input, channel_axis);
  if (c->ValueKnown(channels) && c->ValueKnown(given) &&
      c->Value(channels) != c->Value(given)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The input's channels must be groups times those of the kernel. "
        "Received: channels=",
        c->Value(given), ", kernel channels=", c->Value(c->Dim(*filter, dims)),
        ", groups=", attributes.groups));
  }
  TF_RETURN_IF_ERROR(c->Merge(given, channels, &channels));
  TF_RETURN_IF_ERROR(c->ReplaceDim(*input, channel_axis, channels, input));
  DimensionHandle of_group;
  TF_RETURN_IF_ERROR(c->Divide(channels, attributes.groups,
                               /*evenly_divisible=*/true, &of_group));
  TF_RETURN_IF_ERROR(c->ReplaceDim(*filter, dims, of_group, filter));
  const DimensionHandle filters = c->Dim(*filter, dims + 1);
  if (c->ValueKnown(filters) && c->Value(filters) % attributes.groups != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Channels and filters must be divisible by groups. Received: filters=",
        c->Value(filters), ", groups=", attributes.groups));
  }

  std::vector<DimensionHandle> sizes(rank, c->UnknownDim());
  sizes[0] = c->Dim(*input, 0);
  sizes[channel_axis] = filters;
  for (int i = 0; i < dims; ++i) {
    const int axis = attributes.spatial_axis(i);
    const int64_t in = c->Value(c->Dim(*input, axis));
    int64_t kernel = c->Value(c->Dim(*filter, i));
    // "same" sizes do not depend on the kernel.
    if (kernel < 0 && attributes.padding == "SAME") kernel = 1;
    if (in < 0 || kernel < 0) continue;
    int64_t before, after, out;
    TF_RETURN_IF_ERROR(attributes.Output(i, in, kernel, &before, &after, &out));
    sizes[axis] = c->MakeDim(out);
  }
  *output = c->MakeShape(sizes);
  if (c->FullyDefined(*input) && c->FullyDefined(*filter)) {
    ConvShape shape;
    TF_RETURN_IF_ERROR(
        attributes.Shape(Sizes(c, *input), Sizes(c, *filter), &shape));
  }
  return absl::OkStatus();
}

absl::Status MergeGradient(InferenceContext* c, int index, ShapeHandle inferred,
                           ShapeHandle* input) {
  ShapeHandle gradient;
  TF_RETURN_IF_ERROR(c->Merge(c->input(index), inferred, &gradient));
  return c->ReplaceDim(*input, 0, c->Dim(gradient, 0), input);
}

absl::Status MergeBias(InferenceContext* c, int index, int channel_axis,
                       ShapeHandle* image) {
  ShapeHandle bias = c->input(index);
  const DimensionHandle channels = c->Dim(*image, channel_axis);
  DimensionHandle merged;
  if (!c->WithRank(bias, 1, &bias).ok() ||
      !c->Merge(channels, c->Dim(bias, 0), &merged).ok()) {
    return BiasError(c->DebugString(c->input(index)), c->Value(channels));
  }
  return c->ReplaceDim(*image, channel_axis, merged, image);
}

}  // namespace kconv::tf
