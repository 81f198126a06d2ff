#include "python/deformable.h"

#include <optional>

#include "deformable/deformable.h"
#include "python/arguments.h"
#include "python/thread_context.h"

namespace kconv {
namespace {

using Array = std::optional<py::array>;

// The data of an array of the problem's type and of this shape.
const void* Data(const char* name, const py::array& array,
                 const py::dtype& dtype, const Sizes& shape) {
  if (!array.dtype().equal(dtype) || !(array.flags() & py::array::c_style)) {
    throw py::type_error(
        std::string(name) +
        " must be C-contiguous, and of the input's dtype. Received: dtype=" +
        Repr(array.dtype()));
  }
  const Sizes given(array.shape(), array.shape() + array.ndim());
  if (given != shape) {
    throw py::value_error(std::string(name) + " must have shape " +
                          Repr(py::tuple(py::cast(shape))) +
                          ". Received: shape=" + Repr(array.attr("shape")));
  }
  return array.data();
}

DeformShape ShapeOf(const py::array& input, const py::array& filter,
                    const Sizes& strides, const Sizes& dilation_rate,
                    const std::vector<std::pair<int64_t, int64_t>>& padding,
                    int64_t groups, int64_t offset_groups) {
  if (input.ndim() != 4 || filter.ndim() != 4 || strides.size() != 2 ||
      dilation_rate.size() != 2 || padding.size() != 2) {
    throw py::value_error(
        "Input and filter must have four dimensions, all options two values. "
        "Received: dimensions=" +
        std::to_string(input.ndim()) + " and " + std::to_string(filter.ndim()));
  }
  DeformShape shape;
  ConvShape& s = shape.conv;
  s.batch = input.shape(0);
  s.in_channels = input.shape(3);
  s.out_channels = filter.shape(3);
  s.groups = groups;
  shape.offset_groups = offset_groups;
  for (int i = 0; i < 2; ++i) {
    const int at = kMaxSpatialDims - 2 + i;
    s.input[at] = input.shape(1 + i);
    s.kernel[at] = filter.shape(i);
    s.stride[at] = strides[i];
    s.dilation[at] = dilation_rate[i];
    s.pad_before[at] = padding[i].first;
    s.pad_after[at] = padding[i].second;
  }
  const std::string error = CompleteDeformShape(&shape);
  if (!error.empty()) throw py::value_error(error);
  return shape;
}

// A result between guards.
struct Result {
  py::array array;
  GuardedBuffer buffer;

  Result(const py::dtype& dtype, const Sizes& shape, int64_t guard)
      : array(dtype, shape), buffer(array.nbytes(), guard) {}

  py::array Take() {
    std::memcpy(array.mutable_data(), buffer.data(),
                static_cast<size_t>(array.nbytes()));
    return array;
  }
};

py::dict Run(const std::string& pass, const py::array& input,
             const py::array& filter, const py::array& offsets,
             const Array& mask, const Array& output, const Array& bias,
             const Sizes& strides, const Sizes& dilation_rate,
             const std::vector<std::pair<int64_t, int64_t>>& padding,
             int64_t groups, int64_t offset_groups,
             const std::string& activation, const std::string& isa_name,
             int threads, int64_t guard) {
  const py::dtype dtype = input.dtype();
  DeformProblem problem;
  problem.pass = ParsePass(pass);
  problem.dtype = ParseDType(py::str(dtype.attr("name")));
  problem.mask = mask.has_value();
  problem.epilogue.bias = bias.has_value();
  problem.epilogue.activation = ParseActivation(activation);
  problem.shape = ShapeOf(input, filter, strides, dilation_rate, padding,
                          groups, offset_groups);
  const bool forward = problem.pass == Pass::kForward;
  if (output.has_value() == forward) {
    throw py::value_error(
        "The output's gradient must be given to the passes that compute "
        "gradients, and to no other. Received: pass_=" +
        pass);
  }
  CheckRun(threads, guard);

  const ConvShape& s = problem.shape.conv;
  const auto pixels = [&](int64_t channels) {
    return Sizes{s.batch, s.output[1], s.output[2], channels};
  };
  const Sizes input_sizes = {s.batch, s.input[1], s.input[2], s.in_channels};
  const Sizes filter_sizes = {s.kernel[1], s.kernel[2], s.GroupInChannels(),
                              s.out_channels};
  const Sizes offsets_sizes = pixels(2 * problem.shape.Points());
  const Sizes mask_sizes = pixels(problem.shape.Points());
  DeformArgs args;
  args.input = Data("input", input, dtype, input_sizes);
  args.filter = Data("filter", filter, dtype, filter_sizes);
  args.offsets = Data("offsets", offsets, dtype, offsets_sizes);
  if (mask) args.mask = Data("mask", *mask, dtype, mask_sizes);
  if (bias) args.bias = Data("bias", *bias, dtype, {s.out_channels});
  if (output) {
    args.output = Data("output", *output, dtype, pixels(s.out_channels));
  }

  std::vector<std::unique_ptr<Result>> results;
  const auto add = [&](const Sizes& sizes) {
    results.push_back(std::make_unique<Result>(dtype, sizes, guard));
    return results.back()->buffer.data();
  };
  const bool image = problem.pass == Pass::kInputGradient;
  args.result = add(forward ? pixels(s.out_channels)
                    : image ? input_sizes
                            : filter_sizes);
  if (image) args.offsets_gradient = add(offsets_sizes);
  if (image && mask) args.mask_gradient = add(mask_sizes);

  ThreadContext ctx(threads);
  ctx.isa = IsaOf(isa_name);
  const int64_t bytes = problem.shape.Pixels() == 0
                            ? 0
                            : DeformWorkspace(problem, ctx.isa, threads);
  GuardedBuffer workspace(bytes, guard);
  ctx.workspace = workspace.data();
  {
    py::gil_scoped_release release;
    RunDeform(problem, args, &ctx);
  }
  bool intact = workspace.Intact();
  py::list arrays;
  for (const auto& result : results) {
    intact &= result->buffer.Intact();
    arrays.append(result->Take());
  }
  py::dict report;
  report["results"] = py::tuple(arrays);
  report["isa"] = ctx.isa_ran;
  report["workspace"] = bytes;
  report["guards_intact"] = intact;
  return report;
}

}  // namespace

void DefineDeform(py::module_& module) {
  using Pads = std::vector<std::pair<int64_t, int64_t>>;
  module.def("deform_conv", Run, py::arg("pass_"), py::arg("input"),
             py::arg("filter"), py::arg("offsets"), py::kw_only(),
             py::arg("mask") = py::none(), py::arg("output") = py::none(),
             py::arg("bias") = py::none(), py::arg("strides") = Sizes{1, 1},
             py::arg("dilation_rate") = Sizes{1, 1},
             py::arg("padding") = Pads(2), py::arg("groups") = 1,
             py::arg("offset_groups") = 1, py::arg("activation") = "linear",
             py::arg("isa") = "", py::arg("threads") = 1, py::arg("guard") = 0);
}

}  // namespace kconv
