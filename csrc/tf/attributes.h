// What the ops have in common: their attributes, and the ConvShape that
// these and the tensors' sizes make.

#ifndef KCONV_TF_ATTRIBUTES_H_
#define KCONV_TF_ATTRIBUTES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "conv.h"

namespace kconv::tf {

struct Attributes {
  std::vector<int64_t> strides;  // one for each spatial dimension
  std::vector<int64_t> dilations;
  std::vector<int64_t> explicit_paddings;  // before, after, before, after, ...
  std::string padding;
  int64_t groups = 1;
  std::string data_format = "channels_last";
  std::string algorithm = "auto";

  // Context: OpKernelConstruction or InferenceContext.
  template <typename Context>
  absl::Status Read(Context* ctx) {
    absl::Status status = ctx->GetAttr("data_format", &data_format);
    status.Update(ctx->GetAttr("algorithm", &algorithm));
    return status.ok() ? ReadWindow(ctx) : status;
  }

  // The same for ops that have one layout and one algorithm.
  template <typename Context>
  absl::Status ReadWindow(Context* ctx) {
    absl::Status status = ctx->GetAttr("strides", &strides);
    status.Update(ctx->GetAttr("dilations", &dilations));
    status.Update(ctx->GetAttr("explicit_paddings", &explicit_paddings));
    status.Update(ctx->GetAttr("padding", &padding));
    status.Update(ctx->GetAttr("groups", &groups));
    return status.ok() ? Check() : status;
  }

  int spatial_dims() const { return static_cast<int>(strides.size()); }
  int rank() const { return spatial_dims() + 2; }
  bool channels_last() const { return data_format == "channels_last"; }
  int channel_axis() const { return channels_last() ? rank() - 1 : 1; }
  int spatial_axis(int i) const { return channels_last() ? 1 + i : 2 + i; }

  // Pads and output size of spatial dimension i.
  absl::Status Output(int i, int64_t input, int64_t kernel, int64_t* pad_before,
                      int64_t* pad_after, int64_t* output) const;

  // The whole shape, from full sizes of the input and the filter.
  absl::Status Shape(absl::Span<const int64_t> input,
                     absl::Span<const int64_t> filter, ConvShape* shape) const;

 private:
  absl::Status Check() const;
};

// What is wrong with a bias of this shape; `channels` below 0 are unknown.
absl::Status BiasError(const std::string& shape, int64_t channels);

absl::Status MakeEpilogue(int64_t num_bias, const std::string& activation,
                          Epilogue* epilogue);

// From the attributes that only the ops have whose result is an image.
template <typename Context>
absl::Status ReadEpilogue(Context* ctx, Epilogue* epilogue) {
  int64_t num_bias = 0;
  std::string activation;
  absl::Status status = ctx->GetAttr("num_bias", &num_bias);
  status.Update(ctx->GetAttr("activation", &activation));
  return status.ok() ? MakeEpilogue(num_bias, activation, epilogue) : status;
}

}  // namespace kconv::tf

#endif  // KCONV_TF_ATTRIBUTES_H_
