#include "tf/attributes.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "registry.h"

namespace kconv::tf {
namespace {

absl::Status Invalid(std::string sentence) {
  return sentence.empty() ? absl::OkStatus()
                          : absl::InvalidArgumentError(sentence);
}

}  // namespace

absl::Status Attributes::Check() const {
  const size_t dims = strides.size();
  if (dims < 1 || dims > kMaxSpatialDims) {
    return Invalid(absl::StrCat(
        "strides must have one to three values, one for each spatial "
        "dimension. Received: strides=[",
        absl::StrJoin(strides, ", "), "]"));
  }
  if (dilations.size() != dims) {
    return Invalid(absl::StrCat(
        "dilations must have as many values as strides. Received: dilations=[",
        absl::StrJoin(dilations, ", "), "]"));
  }
  if (explicit_paddings.size() != (padding == "EXPLICIT" ? 2 * dims : 0)) {
    return Invalid(absl::StrCat(
        "explicit_paddings must have two values for each spatial dimension "
        "with padding=EXPLICIT, else none. Received: explicit_paddings=[",
        absl::StrJoin(explicit_paddings, ", "), "], padding=", padding));
  }
  if (groups < 1) {
    return Invalid(
        absl::StrCat("groups must be positive. Received: groups=", groups));
  }
  if (Named(algorithm).empty()) {
    std::string error;
    Resolve(algorithm, Problem(), Terms(), &error);
    return Invalid(error);
  }
  // Whatever the sizes turn out to be.
  for (size_t i = 0; i < dims; ++i) {
    int64_t before, after, output;
    absl::Status status =
        Output(static_cast<int>(i), 0, 1, &before, &after, &output);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Attributes::Output(int i, int64_t input, int64_t kernel,
                                int64_t* pad_before, int64_t* pad_after,
                                int64_t* output) const {
  *pad_before = *pad_after = 0;
  if (padding == "EXPLICIT") {
    *pad_before = explicit_paddings[2 * i];
    *pad_after = explicit_paddings[2 * i + 1];
  } else if (padding == "SAME" && kernel >= 1 && strides[i] >= 1 &&
             dilations[i] >= 1) {
    if (!SamePadding(input, kernel, strides[i], dilations[i], pad_before,
                     pad_after)) {
      return Invalid(absl::StrCat(
          "Padding \"same\" is too large. Received: size=", input,
          ", kernel_size=", kernel, ", dilation_rate=", dilations[i]));
    }
  }
  return Invalid(OutputSize(input, kernel, strides[i], dilations[i],
                            *pad_before, *pad_after, output));
}

absl::Status Attributes::Shape(absl::Span<const int64_t> input,
                               absl::Span<const int64_t> filter,
                               ConvShape* shape) const {
  const auto rank_error = [&](const char* name, absl::Span<const int64_t> is) {
    return Invalid(absl::StrCat("The ", name, " must have ", rank(),
                                " dimensions. Received: shape=(",
                                absl::StrJoin(is, ", "), ")"));
  };
  if (static_cast<int>(input.size()) != rank()) {
    return rank_error("input", input);
  }
  if (static_cast<int>(filter.size()) != rank()) {
    return rank_error("kernel", filter);
  }
  const int dims = spatial_dims();
  *shape = ConvShape();
  shape->layout =
      channels_last() ? Layout::kChannelsLast : Layout::kChannelsFirst;
  shape->spatial_dims = dims;
  shape->batch = input[0];
  shape->in_channels = input[channel_axis()];
  shape->out_channels = filter[dims + 1];
  shape->groups = groups;
  for (int i = 0; i < dims; ++i) {
    const int at = kMaxSpatialDims - dims + i;
    shape->input[at] = input[spatial_axis(i)];
    shape->kernel[at] = filter[i];
    shape->stride[at] = strides[i];
    shape->dilation[at] = dilations[i];
    absl::Status status =
        Output(i, shape->input[at], shape->kernel[at], &shape->pad_before[at],
               &shape->pad_after[at], &shape->output[at]);
    if (!status.ok()) return status;
  }
  absl::Status status = Invalid(CompleteShape(shape));
  if (!status.ok()) return status;
  if (filter[dims] != shape->GroupInChannels()) {
    return Invalid(absl::StrCat(
        "The input's channels must be groups times those of the kernel. "
        "Received: channels=",
        shape->in_channels, ", kernel channels=", filter[dims],
        ", groups=", groups));
  }
  return absl::OkStatus();
}

absl::Status BiasError(const std::string& shape, int64_t channels) {
  return Invalid(absl::StrCat(
      "bias must be a vector of one value for each channel of the result. "
      "Received: shape=",
      shape, channels < 0 ? "" : absl::StrCat(", channels=", channels)));
}

absl::Status MakeEpilogue(int64_t num_bias, const std::string& activation,
                          Epilogue* epilogue) {
  if (num_bias < 0 || num_bias > 1) {
    return Invalid(absl::StrCat(
        "There may be one bias or none. Received: num_bias=", num_bias));
  }
  epilogue->bias = num_bias == 1;
  epilogue->activation = activation == "relu"    ? Activation::kRelu
                         : activation == "relu6" ? Activation::kRelu6
                                                 : Activation::kNone;
  return absl::OkStatus();
}

}  // namespace kconv::tf
