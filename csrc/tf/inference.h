// What the shape functions of the ops share.

#ifndef KCONV_TF_INFERENCE_H_
#define KCONV_TF_INFERENCE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/attributes.h"

namespace kconv::tf {

// Of a shape of known rank; -1 is unknown.
std::vector<int64_t> Sizes(tensorflow::shape_inference::InferenceContext* c,
                           tensorflow::shape_inference::ShapeHandle shape);

// What the parts of `input` and `filter` that are known tell of the output and
// of one another; each is refined in place.
absl::Status InferOutput(tensorflow::shape_inference::InferenceContext* c,
                         const Attributes& attributes,
                         tensorflow::shape_inference::ShapeHandle* input,
                         tensorflow::shape_inference::ShapeHandle* filter,
                         tensorflow::shape_inference::ShapeHandle* output);

// Merges what was inferred of the output with the gradient that was given, and
// takes the batch from either.
absl::Status MergeGradient(tensorflow::shape_inference::InferenceContext* c,
                           int index,
                           tensorflow::shape_inference::ShapeHandle inferred,
                           tensorflow::shape_inference::ShapeHandle* input);

// The bias, input `index`, has one value for each channel of the image that is
// written, and can tell how many.
absl::Status MergeBias(tensorflow::shape_inference::InferenceContext* c,
                       int index, int channel_axis,
                       tensorflow::shape_inference::ShapeHandle* image);

}  // namespace kconv::tf

#endif  // KCONV_TF_INFERENCE_H_
