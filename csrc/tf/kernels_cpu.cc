// The CPU kernels of the ops: unwrap tensors, allocate, call the core.

#include <new>

#include "absl/strings/str_cat.h"
#include "prepared.h"
#include "registry.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/determinism.h"
#include "tf/attributes.h"
#include "tf/filter_shape.h"
#include "tf/huge_pages.h"
#include "tf/intra_op_context.h"
#include "tf/tensors.h"
#include "tf/workspace_meter.h"

namespace kconv::tf {
namespace {

using tensorflow::DataType;
using tensorflow::DataTypeToEnum;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

Terms TermsOf(const Context& context) {
  Terms terms;
  terms.isa = context.isa;
  terms.threads = context.threads();
  terms.deterministic = tensorflow::OpDeterminismRequired();
  return terms;
}

// kPass says which of the op's inputs are tensors and which one is sizes.
template <typename T, Pass kPass>
class ConvKernel : public OpKernel {
 public:
  explicit ConvKernel(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, attributes_.Read(ctx));
    if constexpr (kPass != Pass::kFilterGradient) {
      OP_REQUIRES_OK(ctx, ReadEpilogue(ctx, &epilogue_));
    }
    if constexpr (kPass == Pass::kForward) {
      OP_REQUIRES_OK(ctx, ReadNumPrepared(ctx, &num_prepared_));
    }
  }

  void Compute(OpKernelContext* ctx) override {
    std::vector<int64_t> input, filter;
    Problem problem;
    problem.pass = kPass;
    problem.dtype = DTypeOf(DataTypeToEnum<T>::value);
    problem.epilogue = epilogue_;
    if constexpr (kPass == Pass::kInputGradient) {
      OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(0), "input_sizes", &input));
    } else {
      input = SizesOf(ctx->input(0));
    }
    if constexpr (kPass == Pass::kFilterGradient) {
      OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(1), "filter_sizes", &filter));
    } else {
      filter = SizesOf(ctx->input(1));
    }
    OP_REQUIRES_OK(ctx, attributes_.Shape(input, filter, &problem.shape));

    const std::vector<int64_t> output = OutputSizes(problem.shape);
    if constexpr (kPass != Pass::kForward) {
      OP_REQUIRES(
          ctx, SizesOf(ctx->input(2)) == output,
          absl::InvalidArgumentError(absl::StrCat(
              "out_backprop must have the shape of the convolution's output, ",
              TensorShape(output).DebugString(),
              ". Received: shape=", ctx->input(2).shape().DebugString())));
    }

    if (epilogue_.bias) {
      const Tensor& bias = ctx->input(kBias);
      const int64_t channels = problem.WrittenChannels();
      OP_REQUIRES(ctx, bias.shape() == TensorShape({channels}),
                  BiasError(bias.shape().DebugString(), channels));
    }

    const void* prepared = nullptr;
    if (num_prepared_ > 0) {
      const Tensor& tensor = ctx->input(2 + epilogue_.bias);
      OP_REQUIRES(ctx, tensor.dims() == 1,
                  PreparedShapeError(tensor.shape().DebugString()));
      const Tensor& source = ctx->input(3 + epilogue_.bias);
      if (tensor.NumElements() > 0 && IsSame(source, ctx->input(1))) {
        const std::string error = PreparedError(
            problem, BestIsa(), tensor.data(), tensor.NumElements());
        OP_REQUIRES(ctx, error.empty(), absl::InvalidArgumentError(error));
        prepared = tensor.data();
      }
    }

    Tensor* result = nullptr;
    OP_REQUIRES_OK(ctx,
                   ctx->allocate_output(
                       0,
                       TensorShape(kPass == Pass::kForward         ? output
                                   : kPass == Pass::kInputGradient ? input
                                                                   : filter),
                       &result));
    if (result->NumElements() == 0) return;
    AdviseHugePages(result->data(), result->TotalBytes());

    ConvArgs args;
    args.input = Data(ctx, Pass::kInputGradient, 0, result);
    args.filter = Data(ctx, Pass::kFilterGradient, 1, result);
    args.output = Data(ctx, Pass::kForward, 2, result);
    if (epilogue_.bias) args.bias = ctx->input(kBias).data();
    args.prepared = prepared;
    Run(ctx, problem, args);
  }

 private:
  // Where the bias is, after the operands.
  static constexpr int kBias = kPass == Pass::kForward ? 2 : 3;

  // Whether both are one buffer. Nobody writes to a buffer that others refer
  // to, and these two do: so equal addresses mean equal values, and that none
  // of them has changed since they became one.
  static bool IsSame(const Tensor& a, const Tensor& b) {
    return a.data() == b.data() && a.TotalBytes() == b.TotalBytes();
  }

  std::vector<int64_t> OutputSizes(const ConvShape& shape) const {
    std::vector<int64_t> sizes(attributes_.rank());
    const int dims = attributes_.spatial_dims();
    sizes[0] = shape.batch;
    sizes[attributes_.channel_axis()] = shape.out_channels;
    for (int i = 0; i < dims; ++i) {
      sizes[attributes_.spatial_axis(i)] =
          shape.output[kMaxSpatialDims - dims + i];
    }
    return sizes;
  }

  // The data of the op's input `index`, or of its result in the pass that
  // writes this tensor.
  static void* Data(OpKernelContext* ctx, Pass writes, int index,
                    Tensor* result) {
    return kPass == writes ? result->data() : ctx->input(index).data();
  }

  // `args.prepared` with its header.
  void Run(OpKernelContext* ctx, const Problem& problem, ConvArgs args) {
    IntraOpContext context(ctx);
    std::string error;
    const Algorithm* algorithm =
        Resolve(attributes_.algorithm, problem, TermsOf(context), &error);
    OP_REQUIRES(ctx, algorithm != nullptr, absl::InvalidArgumentError(error));
    args.prepared =
        PreparedFor(*algorithm, problem, context.isa, args.prepared);
    const int64_t bytes =
        algorithm->workspace(problem, context.isa, context.threads());
    Tensor workspace;
    if (bytes > 0) {
      OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_UINT8,
                                             TensorShape({bytes}), &workspace));
      context.workspace = workspace.data();
      AdviseHugePages(workspace.data(), bytes);
    }
    const WorkspaceMeter meter(bytes);
    try {
      const char* failure = algorithm->run(problem, args, &context);
      OP_REQUIRES(ctx, failure == nullptr, absl::InternalError(failure));
    } catch (const std::bad_alloc&) {
      ctx->SetStatus(absl::ResourceExhaustedError(absl::StrCat(
          "Out of memory. Received: algorithm=", algorithm->name)));
    }
  }

  Attributes attributes_;
  Epilogue epilogue_;
  int64_t num_prepared_ = 0;
};

template <typename T>
class PrepareFilterKernel : public OpKernel {
 public:
  explicit PrepareFilterKernel(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, attributes_.Read(ctx));
  }

  void Compute(OpKernelContext* ctx) override {
    const Tensor& filter = ctx->input(0);
    Problem problem;
    problem.dtype = DTypeOf(DataTypeToEnum<T>::value);
    OP_REQUIRES_OK(ctx, attributes_.Shape(SizesOf(filter), &problem.shape));
    const std::string& name = attributes_.algorithm;
    const int64_t bytes = PreparedBytes(name, problem, BestIsa());
    Tensor* prepared = nullptr;
    OP_REQUIRES_OK(ctx,
                   ctx->allocate_output(0, TensorShape({bytes}), &prepared));
    if (bytes == 0) return;
    AdviseHugePages(prepared->data(), bytes);
    PrepareFilter(name, problem, BestIsa(), filter.data(), prepared->data());
  }

 private:
  FilterAttributes attributes_;
};

class PrefersStockKernel : public OpKernel {
 public:
  explicit PrefersStockKernel(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, attributes_.Read(ctx));
    DataType type;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("T", &type));
    dtype_ = DTypeOf(type);
    std::string pass;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("pass_name", &pass));
    pass_ = pass == "forward"          ? Pass::kForward
            : pass == "input_gradient" ? Pass::kInputGradient
                                       : Pass::kFilterGradient;
  }

  void Compute(OpKernelContext* ctx) override {
    std::vector<int64_t> input, filter;
    OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(0), "input_sizes", &input));
    OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(1), "filter_sizes", &filter));
    Problem problem;
    problem.pass = pass_;
    problem.dtype = dtype_;
    Tensor* result = nullptr;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &result));
    // What is wrong with a problem kconv's own op says.
    bool prefers = false;
    if (attributes_.Shape(input, filter, &problem.shape).ok()) {
      const IntraOpContext context(ctx);
      Terms terms = TermsOf(context);
      terms.with_stock = true;
      prefers = Choose(attributes_.algorithm, problem, terms).is_stock;
    }
    result->scalar<bool>()() = prefers;
  }

 private:
  Attributes attributes_;
  DType dtype_;
  Pass pass_;
};

REGISTER_KERNEL_BUILDER(
    Name("Kconv>PrefersStock").Device(tensorflow::DEVICE_CPU),
    PrefersStockKernel);

#define KCONV_REGISTER(T)                                       \
  REGISTER_KERNEL_BUILDER(Name("Kconv>Conv")                    \
                              .Device(tensorflow::DEVICE_CPU)   \
                              .TypeConstraint<T>("T"),          \
                          ConvKernel<T, Pass::kForward>);       \
  REGISTER_KERNEL_BUILDER(Name("Kconv>PrepareFilter")           \
                              .Device(tensorflow::DEVICE_CPU)   \
                              .TypeConstraint<T>("T"),          \
                          PrepareFilterKernel<T>);              \
  REGISTER_KERNEL_BUILDER(Name("Kconv>ConvBackpropInput")       \
                              .Device(tensorflow::DEVICE_CPU)   \
                              .TypeConstraint<T>("T"),          \
                          ConvKernel<T, Pass::kInputGradient>); \
  REGISTER_KERNEL_BUILDER(Name("Kconv>ConvBackpropFilter")      \
                              .Device(tensorflow::DEVICE_CPU)   \
                              .TypeConstraint<T>("T"),          \
                          ConvKernel<T, Pass::kFilterGradient>);

KCONV_REGISTER(float)
KCONV_REGISTER(double)
KCONV_REGISTER(Eigen::half)
KCONV_REGISTER(Eigen::bfloat16)

}  // namespace
}  // namespace kconv::tf
