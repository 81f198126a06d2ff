// The ops and their shape functions.

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/attributes.h"
#include "tf/filter_shape.h"

namespace kconv::tf {
namespace {

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

// What the parts of `input` and `filter` that are known tell of the output and
// of one another; each is refined in place.
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

// Merges what was inferred of the output with the gradient that was given, and
// takes the batch from either.
absl::Status MergeGradient(InferenceContext* c, int index, ShapeHandle inferred,
                           ShapeHandle* input) {
  ShapeHandle gradient;
  TF_RETURN_IF_ERROR(c->Merge(c->input(index), inferred, &gradient));
  return c->ReplaceDim(*input, 0, c->Dim(gradient, 0), input);
}

// The bias, input `index`, has one value for each channel of the image that is
// written, and can tell how many.
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

absl::Status ConvShapeFunction(InferenceContext* c) {
  Attributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  Epilogue epilogue;
  TF_RETURN_IF_ERROR(ReadEpilogue(c, &epilogue));
  ShapeHandle input = c->input(0), filter = c->input(1), output;
  TF_RETURN_IF_ERROR(InferOutput(c, attributes, &input, &filter, &output));
  if (epilogue.bias) {
    TF_RETURN_IF_ERROR(MergeBias(c, 2, attributes.channel_axis(), &output));
  }
  int64_t num_prepared = 0;
  TF_RETURN_IF_ERROR(ReadNumPrepared(c, &num_prepared));
  if (num_prepared > 0) {
    ShapeHandle vector = c->input(2 + epilogue.bias);
    if (!c->WithRank(vector, 1, &vector).ok()) {
      return PreparedShapeError(c->DebugString(c->input(2 + epilogue.bias)));
    }
  }
  c->set_output(0, output);
  return absl::OkStatus();
}

absl::Status PrepareFilterShapeFunction(InferenceContext* c) {
  FilterAttributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  if (c->FullyDefined(c->input(0))) {
    ConvShape shape;
    TF_RETURN_IF_ERROR(attributes.Shape(Sizes(c, c->input(0)), &shape));
  }
  // The machine that runs the op decides how many bytes there are.
  c->set_output(0, c->Vector(InferenceContext::kUnknownDim));
  return absl::OkStatus();
}

absl::Status InputGradientShapeFunction(InferenceContext* c) {
  Attributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  ShapeHandle input, filter = c->input(1), output;
  TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(0, &input));
  TF_RETURN_IF_ERROR(InferOutput(c, attributes, &input, &filter, &output));
  TF_RETURN_IF_ERROR(MergeGradient(c, 2, output, &input));
  Epilogue epilogue;
  TF_RETURN_IF_ERROR(ReadEpilogue(c, &epilogue));
  if (epilogue.bias) {
    TF_RETURN_IF_ERROR(MergeBias(c, 3, attributes.channel_axis(), &input));
  }
  c->set_output(0, input);
  return absl::OkStatus();
}

absl::Status FilterGradientShapeFunction(InferenceContext* c) {
  Attributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  ShapeHandle input = c->input(0), filter, output;
  TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(1, &filter));
  TF_RETURN_IF_ERROR(InferOutput(c, attributes, &input, &filter, &output));
  TF_RETURN_IF_ERROR(MergeGradient(c, 2, output, &input));
  ShapeHandle gradient;
  TF_RETURN_IF_ERROR(c->Merge(c->input(2), output, &gradient));
  TF_RETURN_IF_ERROR(c->ReplaceDim(filter, attributes.rank() - 1,
                                   c->Dim(gradient, attributes.channel_axis()),
                                   &filter));
  c->set_output(0, filter);
  return absl::OkStatus();
}

}  // namespace
}  // namespace kconv::tf

#define KCONV_ATTRIBUTES(op)                                    \
  op.Attr("T: {half, bfloat16, float, double}")                 \
      .Attr("strides: list(int)")                               \
      .Attr("dilations: list(int)")                             \
      .Attr("padding: {'VALID', 'SAME', 'EXPLICIT'}")           \
      .Attr("explicit_paddings: list(int) = []")                \
      .Attr("groups: int = 1")                                  \
      .Attr(                                                    \
          "data_format: {'channels_last', 'channels_first'} = " \
          "'channels_last'")                                    \
      .Attr("algorithm: string = 'auto'")

KCONV_ATTRIBUTES(REGISTER_OP("Kconv>Conv")
                     .Input("input: T")
                     .Input("filter: T")
                     .Input("bias: num_bias * T")
                     .Input("prepared: num_prepared * uint8")
                     .Input("source: num_prepared * T")
                     .Output("output: T")
                     .Attr("num_bias: int >= 0 = 0")
                     .Attr("num_prepared: int >= 0 = 0")
                     .Attr("activation: {'linear', 'relu', 'relu6'} = "
                           "'linear'"))
    .SetShapeFn(kconv::tf::ConvShapeFunction)
    .Doc(
        "A convolution of one to three spatial dimensions, in groups; with the "
        "bias, if any, added and the activation applied. `prepared` is empty, "
        "or what Kconv>PrepareFilter made of `source`. It is used if `source` "
        "and the filter are one buffer, as they are while a variable of the "
        "one is assigned a read of the other's and neither has changed since. "
        "Else the filter alone is read. It changes no bit of the output.");

REGISTER_OP("Kconv>PrepareFilter")
    .Input("filter: T")
    .Output("prepared: uint8")
    .Attr("T: {half, bfloat16, float, double}")
    .Attr("strides: list(int) = []")
    .Attr("groups: int = 1")
    .Attr("algorithm: string = 'auto'")
    .SetShapeFn(kconv::tf::PrepareFilterShapeFunction)
    .Doc(
        "The filter as the algorithms read it that may run, for many calls of "
        "Kconv>Conv in this process; empty if none has a use for it.");

KCONV_ATTRIBUTES(REGISTER_OP("Kconv>ConvBackpropInput")
                     .Input("input_sizes: Tsizes")
                     .Input("filter: T")
                     .Input("out_backprop: T")
                     .Input("bias: num_bias * T")
                     .Output("output: T")
                     .Attr("num_bias: int >= 0 = 0")
                     .Attr("activation: {'linear', 'relu', 'relu6'} = "
                           "'linear'")
                     .Attr("Tsizes: {int32, int64} = DT_INT32"))
    .SetShapeFn(kconv::tf::InputGradientShapeFunction)
    .Doc(
        "The gradient of Kconv>Conv, of a plain convolution, with respect to "
        "its input: a transposed convolution. With the bias, if any, added and "
        "the activation applied.");

KCONV_ATTRIBUTES(REGISTER_OP("Kconv>ConvBackpropFilter")
                     .Input("input: T")
                     .Input("filter_sizes: Tsizes")
                     .Input("out_backprop: T")
                     .Output("output: T")
                     .Attr("Tsizes: {int32, int64} = DT_INT32"))
    .SetShapeFn(kconv::tf::FilterGradientShapeFunction)
    .Doc("The gradient of Kconv>Conv with respect to its filter.");

KCONV_ATTRIBUTES(
    REGISTER_OP("Kconv>PrefersStock")
        .Input("input_sizes: int64")
        .Input("filter_sizes: int64")
        .Output("prefers: bool")
        .Attr("pass_name: {'forward', 'input_gradient', 'filter_gradient'}"))
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* c) {
      c->set_output(0, c->Scalar());
      return absl::OkStatus();
    })
    .Doc(
        "Whether TensorFlow's own kernel is expected to be the fastest for a "
        "problem that it takes, whatever the sizes.");
