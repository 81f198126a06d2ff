// The ops and their shape functions.

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/attributes.h"
#include "tf/filter_shape.h"
#include "tf/inference.h"

namespace kconv::tf {
namespace {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

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
        .Attr("pass_name: {'forward', 'input_gradient', 'filter_gradient'}")
        .Attr("device: {'CPU', 'GPU'} = 'CPU'"))
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* c) {
      c->set_output(0, c->Scalar());
      return absl::OkStatus();
    })
    .Doc(
        "Whether TensorFlow's own kernel is expected to be the fastest for a "
        "problem that it takes, whatever the sizes. On a GPU it is, unless "
        "another was measured to be.");
