// The registry and the kernels on NumPy arrays, without TensorFlow: to test, to
// explain and to time everything.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "choices.h"
#include "correction/correction.h"
#include "correction/features.h"
#include "prepared.h"
#include "python/arguments.h"
#include "python/deformable.h"
#include "python/thread_context.h"
#include "registry.h"
#include "stock.h"
#include "workspace_limit.h"

namespace py = pybind11;

namespace kconv {
namespace {

class PyProblem {
 public:
  PyProblem(const std::string& pass, const Sizes& input_size,
            const Sizes& kernel_size, int64_t in_channels, int64_t out_channels,
            int64_t batch, int64_t groups, const Sizes& strides,
            const Sizes& dilation_rate,
            const std::vector<std::pair<int64_t, int64_t>>& padding,
            const std::string& layout, const std::string& dtype, bool bias,
            const std::string& activation, const std::string& device)
      : pass_(pass), layout_(layout), dtype_(dtype) {
    problem_.pass = ParsePass(pass);
    problem_.dtype = ParseDType(dtype);
    problem_.epilogue.bias = bias;
    problem_.epilogue.activation = ParseActivation(activation);
    problem_.device = Parse<Device>(
        "device", device, {{"cpu", Device::kCpu}, {"gpu", Device::kGpu}});
    if (problem_.pass == Pass::kFilterGradient && !problem_.epilogue.Empty()) {
      throw py::value_error(
          "A bias or an activation follows the passes that write an image "
          "only. "
          "Received: pass_=" +
          pass);
    }
    ConvShape& s = problem_.shape;
    s.layout = Parse<Layout>("layout", layout,
                             {{"channels_last", Layout::kChannelsLast},
                              {"channels_first", Layout::kChannelsFirst}});
    const size_t dims = input_size.size();
    if (dims < 1 || dims > kMaxSpatialDims) {
      throw py::value_error(
          "input_size must have one to three values. Received: input_size=" +
          Repr(py::cast(input_size)));
    }
    CheckLength("kernel_size", kernel_size.size(), dims, false);
    CheckLength("strides", strides.size(), dims, true);
    CheckLength("dilation_rate", dilation_rate.size(), dims, true);
    CheckLength("padding", padding.size(), dims, true);
    s.spatial_dims = static_cast<int>(dims);
    s.batch = batch;
    s.in_channels = in_channels;
    s.out_channels = out_channels;
    s.groups = groups;
    for (size_t i = 0; i < dims; ++i) {
      const size_t at = kMaxSpatialDims - dims + i;
      s.input[at] = input_size[i];
      s.kernel[at] = kernel_size[i];
      if (!strides.empty()) s.stride[at] = strides[i];
      if (!dilation_rate.empty()) s.dilation[at] = dilation_rate[i];
      if (!padding.empty()) {
        s.pad_before[at] = padding[i].first;
        s.pad_after[at] = padding[i].second;
      }
    }
    const std::string error = CompleteShape(&s);
    if (!error.empty()) throw py::value_error(error);
  }

  const std::string& pass() const { return pass_; }
  const std::string& layout() const { return layout_; }
  const std::string& dtype() const { return dtype_; }
  double macs() const { return problem_.Macs(); }

  py::tuple InputShape() const {
    return TensorShape(problem_.shape.in_channels, problem_.shape.input);
  }
  py::tuple OutputShape() const {
    return TensorShape(problem_.shape.out_channels, problem_.shape.output);
  }
  py::tuple FilterShape() const {
    Sizes sizes = Spatial(problem_.shape.kernel);
    sizes.push_back(problem_.shape.GroupInChannels());
    sizes.push_back(problem_.shape.out_channels);
    return py::tuple(py::cast(sizes));
  }

  py::list Explain(const std::string& isa_name, const std::string& name,
                   int threads, bool deterministic, bool with_stock) const {
    const Terms terms = {IsaOf(isa_name), threads, deterministic, with_stock};
    const Choice choice = Choose(name, problem_, terms);
    const std::string measured = choice.is_measured ? choice.Name() : "";
    const Corrections corrections(problem_, terms.isa);
    // What Choose compares, and by what the formula was multiplied.
    auto estimate = [&](py::dict* entry, double seconds) {
      const double correction =
          corrections.Of((*entry)["algorithm"].cast<std::string>());
      (*entry)["seconds"] = seconds * correction;
      (*entry)["correction"] = correction;
    };
    py::list result;
    for (const Algorithm* algorithm : Algorithms()) {
      py::dict entry =
          Entry(algorithm->name, WhyNot(*algorithm, name, problem_, terms));
      entry["is_strict"] = algorithm->is_strict;
      if (entry["refusal"].is_none()) {
        estimate(&entry, algorithm->cost(problem_, ThisCpu(), terms.isa));
        entry["workspace"] = algorithm->workspace(problem_, terms.isa, threads);
        entry["multiplications"] = algorithm->multiplications
                                       ? algorithm->multiplications(problem_)
                                       : problem_.Macs();
      }
      entry["is_measured"] = measured == algorithm->name;
      result.append(entry);
    }
    if (with_stock) {
      py::dict entry = Entry(kStockName, WhyNotStock(problem_, terms));
      if (entry["refusal"].is_none()) {
        estimate(&entry, StockCost(problem_, ThisCpu()));
      }
      entry["is_measured"] = measured == kStockName;
      result.append(entry);
    }
    return result;
  }

  const char* ChooseName(const std::string& isa, const std::string& name,
                         int threads, bool deterministic,
                         bool with_stock) const {
    const Terms terms = {IsaOf(isa), threads, deterministic, with_stock};
    const Choice choice = Choose(name, problem_, terms);
    if (choice.Name() == nullptr) {
      std::string error;
      Resolve(name, problem_, terms, &error);
      throw py::value_error(error);
    }
    return choice.Name();
  }

  std::vector<float> Features() const {
    return correction::FeaturesOf(problem_);
  }

  std::vector<double> Factors(const std::string& network) const {
    const std::vector<std::string> names = correction::Networks();
    if (std::find(names.begin(), names.end(), network) == names.end()) {
      throw py::value_error("network must be one of networks(). Received: " +
                            network);
    }
    return correction::FactorsOf(network, problem_);
  }

  std::string Key() const { return KeyOf(problem_); }

  py::bytes Prepare(const py::array& filter, const std::string& algorithm_name,
                    const std::string& isa_name) const {
    const Isa isa = IsaOf(isa_name);
    GuardedBuffer buffer(PreparedBytes(algorithm_name, problem_, isa), 64);
    PrepareFilter(algorithm_name, problem_, isa, Operand(filter, FilterShape()),
                  buffer.data());
    if (!buffer.Intact()) throw std::runtime_error("It wrote past the end.");
    return py::bytes(
        static_cast<const char*>(buffer.data()),
        static_cast<size_t>(PreparedBytes(algorithm_name, problem_, isa)));
  }

  py::dict Run(const py::array& a, const py::array& b,
               const std::string& algorithm_name, const std::string& isa_name,
               int threads, int64_t guard, const std::optional<py::array>& bias,
               const std::optional<py::bytes>& prepared) const {
    if (bias.has_value() != problem_.epilogue.bias) {
      throw py::value_error(
          "A bias must be given where the problem has one. Received: bias=" +
          Repr(py::cast(bias)));
    }
    CheckRun(threads, guard);
    ThreadContext ctx(threads);
    ctx.isa = IsaOf(isa_name);
    std::string error;
    Terms terms;
    terms.isa = ctx.isa;
    terms.threads = threads;
    const Algorithm* algorithm =
        Resolve(algorithm_name, problem_, terms, &error);
    if (algorithm == nullptr) throw py::value_error(error);

    const bool forward = problem_.pass == Pass::kForward;
    const bool filter = problem_.pass == Pass::kFilterGradient;
    const py::tuple shape = forward  ? OutputShape()
                            : filter ? FilterShape()
                                     : InputShape();
    void* first = Operand(a, forward || filter ? InputShape() : OutputShape());
    void* second = Operand(b, filter ? OutputShape() : FilterShape());

    py::array result(a.dtype(), shape.cast<Sizes>());
    GuardedBuffer output(result.nbytes(), guard);
    GuardedBuffer workspace(algorithm->workspace(problem_, ctx.isa, threads),
                            guard);
    ctx.workspace = workspace.data();
    ConvArgs args;
    args.input = forward || filter ? first : output.data();
    args.filter = filter ? output.data() : second;
    args.output = forward ? output.data() : filter ? second : first;
    if (bias) {
      args.bias = Operand(*bias, py::make_tuple(problem_.WrittenChannels()));
    }
    if (prepared) {
      const auto bytes = static_cast<std::string_view>(*prepared);
      error = PreparedError(problem_, ctx.isa, bytes.data(),
                            static_cast<int64_t>(bytes.size()));
      if (!error.empty()) throw py::value_error(error);
      args.prepared = PreparedFor(*algorithm, problem_, ctx.isa, bytes.data());
    }
    const char* failure = nullptr;
    {
      py::gil_scoped_release release;
      failure = algorithm->run(problem_, args, &ctx);
    }
    if (failure) throw std::runtime_error(failure);
    std::memcpy(result.mutable_data(), output.data(),
                static_cast<size_t>(result.nbytes()));
    py::dict report;
    report["result"] = result;
    report["algorithm"] = algorithm->name;
    report["isa"] = ctx.isa_ran;
    report["used_prepared"] = args.prepared != nullptr;
    report["guards_intact"] = output.Intact() && workspace.Intact();
    return report;
  }

 private:
  static py::dict Entry(const char* algorithm, const char* refusal) {
    py::dict entry;
    entry["algorithm"] = algorithm;
    entry["refusal"] = refusal ? py::object(py::str(refusal)) : py::none();
    for (const char* unknown : {"seconds", "workspace", "multiplications"}) {
      entry[unknown] = py::none();
    }
    return entry;
  }

  static void CheckLength(const char* name, size_t length, size_t dims,
                          bool may_be_empty) {
    if (length == dims || (may_be_empty && length == 0)) return;
    throw py::value_error(
        std::string(name) + " must have " + std::to_string(dims) +
        " values, as input_size has. Received: " + std::to_string(length) +
        " values");
  }

  Sizes Spatial(const int64_t* sizes) const {
    const int missing = kMaxSpatialDims - problem_.shape.spatial_dims;
    return Sizes(sizes + missing, sizes + kMaxSpatialDims);
  }

  py::tuple TensorShape(int64_t channels, const int64_t* spatial) const {
    Sizes sizes = Spatial(spatial);
    const bool last = problem_.shape.layout == Layout::kChannelsLast;
    sizes.insert(last ? sizes.end() : sizes.begin(), channels);
    sizes.insert(sizes.begin(), problem_.shape.batch);
    return py::tuple(py::cast(sizes));
  }

  void* Operand(const py::array& array, const py::tuple& shape) const {
    const std::string dtype = py::str(array.dtype().attr("name"));
    if (dtype != dtype_ || !array.dtype().attr("isnative").cast<bool>()) {
      throw py::type_error("Arrays must be of the problem's dtype, " + dtype_ +
                           ". Received: dtype=" + Repr(array.dtype()));
    }
    if (!py::object(array.attr("shape")).equal(shape)) {
      throw py::value_error("An array must have shape " + Repr(shape) +
                            ". Received: shape=" + Repr(array.attr("shape")));
    }
    if (!(array.flags() & py::array::c_style)) {
      throw py::value_error("Arrays must be C-contiguous. Received: strides=" +
                            Repr(array.attr("strides")));
    }
    return const_cast<void*>(array.data());
  }

  Problem problem_;
  std::string pass_, layout_, dtype_;
};

py::dict CpuInfo() {
  py::dict info;
  info["isa"] = IsaName(BestIsa());
  info["l1d"] = ThisCpu().l1d_bytes;
  info["l2"] = ThisCpu().l2_bytes;
  info["l3"] = ThisCpu().l3_bytes;
  info["frequency"] = ThisCpu().frequency;
  return info;
}

py::dict BuildInfo() {
  py::dict info;
#ifdef __clang__
  info["compiler"] = "clang " __VERSION__;
#else
  info["compiler"] = "g++ " __VERSION__;
#endif
#ifdef KCONV_X86_KERNELS
  info["isas"] = py::make_tuple("sse2", "avx2", "avx512");
#else
  info["isas"] = py::make_tuple("portable");
#endif
  return info;
}

PYBIND11_MODULE(_core, m) {
  m.doc() = "kconv's kernels on NumPy arrays, without TensorFlow.";
  m.attr("__version__") = KCONV_VERSION;
  m.def("algorithms", [] {
    std::vector<std::string> names;
    for (const Algorithm* a : Algorithms()) names.push_back(a->name);
    return names;
  });
  m.def("isas", [] {
    std::vector<std::string> names;
    for (Isa isa : UsableIsas()) names.push_back(IsaName(isa));
    return names;
  });
  m.def("networks", correction::Networks);
  m.def(
      "network",
      [](const std::string& isa) {
        return correction::ThisNetwork(IsaOf(isa));
      },
      py::arg("isa") = "");
  m.def("cpu_info", CpuInfo);
  m.def("build_info", BuildInfo);
  m.def("stock_engine", StockEngine);
  m.def("set_choices", SetChoices);
  m.def("workspace_limit", []() -> std::optional<int64_t> {
    const int64_t limit = WorkspaceLimit();
    if (limit == kNoWorkspaceLimit) return std::nullopt;
    return limit;
  });
  m.def("set_workspace_limit", [](std::optional<int64_t> bytes) {
    SetWorkspaceLimit(bytes.value_or(kNoWorkspaceLimit));
  });
  m.def("is_workspace_limit", [](const std::string& text) {
    int64_t bytes;
    return ParseWorkspaceLimit(text, &bytes);
  });
  py::class_<PyProblem>(m, "Problem")
      .def(py::init<const std::string&, const Sizes&, const Sizes&, int64_t,
                    int64_t, int64_t, int64_t, const Sizes&, const Sizes&,
                    const std::vector<std::pair<int64_t, int64_t>>&,
                    const std::string&, const std::string&, bool,
                    const std::string&, const std::string&>(),
           py::arg("pass_"), py::arg("input_size"), py::arg("kernel_size"),
           py::arg("in_channels"), py::arg("out_channels"), py::kw_only(),
           py::arg("batch") = 1, py::arg("groups") = 1,
           py::arg("strides") = Sizes(), py::arg("dilation_rate") = Sizes(),
           py::arg("padding") = std::vector<std::pair<int64_t, int64_t>>(),
           py::arg("layout") = "channels_last", py::arg("dtype") = "float32",
           py::arg("bias") = false, py::arg("activation") = "linear",
           py::arg("device") = "cpu")
      .def_property_readonly("pass_", &PyProblem::pass)
      .def_property_readonly("layout", &PyProblem::layout)
      .def_property_readonly("dtype", &PyProblem::dtype)
      .def_property_readonly("input_shape", &PyProblem::InputShape)
      .def_property_readonly("filter_shape", &PyProblem::FilterShape)
      .def_property_readonly("output_shape", &PyProblem::OutputShape)
      .def_property_readonly("macs", &PyProblem::macs)
      .def_property_readonly("key", &PyProblem::Key)
      .def("explain", &PyProblem::Explain, py::arg("isa") = "",
           py::arg("algorithm") = "auto", py::arg("threads") = 1,
           py::arg("deterministic") = false, py::arg("with_stock") = false)
      .def("features", &PyProblem::Features)
      .def("factors", &PyProblem::Factors, py::arg("network"))
      .def("choose", &PyProblem::ChooseName, py::arg("isa") = "",
           py::arg("algorithm") = "auto", py::arg("threads") = 1,
           py::arg("deterministic") = false, py::arg("with_stock") = false)
      .def("run", &PyProblem::Run, py::arg("a"), py::arg("b"),
           py::arg("algorithm") = "auto", py::arg("isa") = "",
           py::arg("threads") = 1, py::arg("guard") = 0,
           py::arg("bias") = py::none(), py::arg("prepared") = py::none())
      .def("prepare", &PyProblem::Prepare, py::arg("filter"),
           py::arg("algorithm") = "auto", py::arg("isa") = "");
  DefineDeform(m);
}

}  // namespace
}  // namespace kconv
