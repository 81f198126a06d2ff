// The ops of deformable convolution and their shape functions.

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/deform_attributes.h"
#include "tf/inference.h"

namespace kconv::tf {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// A tensor of `per_point` values for each sampled point, as far as it is known.
absl::Status PointsShape(InferenceContext* c, int64_t offset_groups,
                         int64_t per_point, ShapeHandle filter,
                         ShapeHandle output, ShapeHandle* points) {
  DimensionHandle taps, channels;
  TF_RETURN_IF_ERROR(c->Multiply(c->Dim(filter, 0), c->Dim(filter, 1), &taps));
  TF_RETURN_IF_ERROR(c->Multiply(taps, offset_groups, &channels));
  TF_RETURN_IF_ERROR(c->Multiply(channels, per_point, &channels));
  return c->ReplaceDim(output, 3, channels, points);
}

absl::Status MergePoints(InferenceContext* c, const char* name, int index,
                         ShapeHandle wanted, ShapeHandle* output,
                         ShapeHandle* points) {
  ShapeHandle given = c->input(index);
  if (!c->Merge(given, wanted, points).ok()) {
    return SizesError(name, c->DebugString(wanted), c->DebugString(given));
  }
  // Batch and size may be known of this one alone.
  for (int i = 0; i < 3; ++i) {
    TF_RETURN_IF_ERROR(c->ReplaceDim(*output, i, c->Dim(*points, i), output));
  }
  return absl::OkStatus();
}

// The shapes of the operands, each refined by all others.
struct Operands {
  ShapeHandle input, filter, output, offsets, mask;
};

// `first` is the index of the offsets, which the mask follows and, but in the
// forward op, the output's gradient.
absl::Status InferOperands(InferenceContext* c,
                           const DeformAttributes& attributes, int first,
                           bool forward, Operands* o) {
  TF_RETURN_IF_ERROR(
      InferOutput(c, attributes.conv, &o->input, &o->filter, &o->output));
  const DimensionHandle channels = c->Dim(o->input, 3);
  if (c->ValueKnown(channels) &&
      c->Value(channels) % attributes.offset_groups != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Channels must be divisible by offset_groups. Received: channels=",
        c->Value(channels), ", offset_groups=", attributes.offset_groups));
  }
  if (!forward) {
    const int index = first + 1 + static_cast<int>(attributes.num_mask);
    ShapeHandle given = c->input(index), merged;
    if (!c->Merge(given, o->output, &merged).ok()) {
      return SizesError("out_backprop", c->DebugString(o->output),
                        c->DebugString(given));
    }
    o->output = merged;
  }
  ShapeHandle wanted;
  TF_RETURN_IF_ERROR(PointsShape(c, attributes.offset_groups, 2, o->filter,
                                 o->output, &wanted));
  TF_RETURN_IF_ERROR(
      MergePoints(c, "offsets", first, wanted, &o->output, &o->offsets));
  if (attributes.num_mask > 0) {
    TF_RETURN_IF_ERROR(PointsShape(c, attributes.offset_groups, 1, o->filter,
                                   o->output, &wanted));
    TF_RETURN_IF_ERROR(
        MergePoints(c, "mask", first + 1, wanted, &o->output, &o->mask));
  }
  return c->ReplaceDim(o->input, 0, c->Dim(o->output, 0), &o->input);
}

absl::Status DeformShapeFunction(InferenceContext* c) {
  DeformAttributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  Epilogue epilogue;
  TF_RETURN_IF_ERROR(ReadEpilogue(c, &epilogue));
  Operands o;
  o.input = c->input(0);
  o.filter = c->input(1);
  TF_RETURN_IF_ERROR(InferOperands(c, attributes, 2, /*forward=*/true, &o));
  if (epilogue.bias) {
    const int index = 3 + static_cast<int>(attributes.num_mask);
    TF_RETURN_IF_ERROR(MergeBias(c, index, 3, &o.output));
  }
  c->set_output(0, o.output);
  return absl::OkStatus();
}

absl::Status ImageGradientShapeFunction(InferenceContext* c) {
  DeformAttributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  Operands o;
  o.input = c->input(0);
  o.filter = c->input(1);
  TF_RETURN_IF_ERROR(InferOperands(c, attributes, 2, /*forward=*/false, &o));
  c->set_output(0, o.input);
  c->set_output(1, o.offsets);
  if (attributes.num_mask > 0) c->set_output(2, o.mask);
  return absl::OkStatus();
}

absl::Status FilterGradientShapeFunction(InferenceContext* c) {
  DeformAttributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  Operands o;
  o.input = c->input(0);
  TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(1, &o.filter));
  TF_RETURN_IF_ERROR(InferOperands(c, attributes, 2, /*forward=*/false, &o));
  TF_RETURN_IF_ERROR(
      c->ReplaceDim(o.filter, 3, c->Dim(o.output, 3), &o.filter));
  c->set_output(0, o.filter);
  return absl::OkStatus();
}

}  // namespace
}  // namespace kconv::tf

#define KCONV_DEFORM_ATTRIBUTES(op)                   \
  op.Attr("T: {half, bfloat16, float, double}")       \
      .Attr("strides: list(int)")                     \
      .Attr("dilations: list(int)")                   \
      .Attr("padding: {'VALID', 'SAME', 'EXPLICIT'}") \
      .Attr("explicit_paddings: list(int) = []")      \
      .Attr("groups: int = 1")                        \
      .Attr("offset_groups: int = 1")                 \
      .Attr("num_mask: int >= 0 = 0")

KCONV_DEFORM_ATTRIBUTES(REGISTER_OP("Kconv>DeformConv")
                            .Input("input: T")
                            .Input("filter: T")
                            .Input("offsets: T")
                            .Input("mask: num_mask * T")
                            .Input("bias: num_bias * T")
                            .Output("output: T"))
    .Attr("num_bias: int >= 0 = 0")
    .Attr("activation: {'linear', 'relu', 'relu6'} = 'linear'")
    .SetShapeFn(kconv::tf::DeformShapeFunction)
    .Doc(
        "A convolution of two spatial dimensions, channels last, whose taps "
        "read the input where the offsets move them to, by bilinear "
        "interpolation; times the mask, if any. With the bias, if any, added "
        "and the activation applied. Channel 2t of the offsets moves point t = "
        "offset group x taps + tap by height, 2t + 1 by width.");

KCONV_DEFORM_ATTRIBUTES(REGISTER_OP("Kconv>DeformConvBackpropInput")
                            .Input("input: T")
                            .Input("filter: T")
                            .Input("offsets: T")
                            .Input("mask: num_mask * T")
                            .Input("out_backprop: T")
                            .Output("input_backprop: T")
                            .Output("offsets_backprop: T")
                            .Output("mask_backprop: num_mask * T"))
    .SetShapeFn(kconv::tf::ImageGradientShapeFunction)
    .Doc(
        "The gradients of Kconv>DeformConv, plain, with respect to its input, "
        "its offsets and its mask.");

KCONV_DEFORM_ATTRIBUTES(REGISTER_OP("Kconv>DeformConvBackpropFilter")
                            .Input("input: T")
                            .Input("filter_sizes: Tsizes")
                            .Input("offsets: T")
                            .Input("mask: num_mask * T")
                            .Input("out_backprop: T")
                            .Output("filter_backprop: T"))
    .Attr("Tsizes: {int32, int64} = DT_INT32")
    .SetShapeFn(kconv::tf::FilterGradientShapeFunction)
    .Doc("The gradient of Kconv>DeformConv with respect to its filter.");
