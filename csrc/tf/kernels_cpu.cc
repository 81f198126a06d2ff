// The CPU kernels of the ops: they call the core.

#include <new>

#include "absl/strings/str_cat.h"
#include "prepared.h"
#include "registry.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/determinism.h"
#include "tf/attributes.h"
#include "tf/conv_kernel.h"
#include "tf/cuda_library.h"
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

template <typename T, Pass kPass>
class CpuConvKernel : public ConvKernel<T, kPass> {
 public:
  using ConvKernel<T, kPass>::ConvKernel;

 private:
  absl::Status ReadPrepared(const Problem& problem, const Tensor& filter,
                            const Tensor& prepared, const Tensor& source,
                            const void** used) const override {
    if (prepared.dims() != 1) {
      return PreparedShapeError(prepared.shape().DebugString());
    }
    if (prepared.NumElements() == 0 || !IsSame(source, filter)) {
      return absl::OkStatus();
    }
    const std::string error = PreparedError(problem, BestIsa(), prepared.data(),
                                            prepared.NumElements());
    if (!error.empty()) return absl::InvalidArgumentError(error);
    *used = prepared.data();
    return absl::OkStatus();
  }

  // Whether both are one buffer. Nobody writes to a buffer that others refer
  // to, and these two do: so equal addresses mean equal values, and that none
  // of them has changed since they became one.
  static bool IsSame(const Tensor& a, const Tensor& b) {
    return a.data() == b.data() && a.TotalBytes() == b.TotalBytes();
  }

  // `args.prepared` with its header.
  void Run(OpKernelContext* ctx, const Problem& problem, ConvArgs args,
           Tensor* result) const override {
    AdviseHugePages(result->data(), result->TotalBytes());
    IntraOpContext context(ctx);
    std::string error;
    const Algorithm* algorithm =
        Resolve(this->algorithm(), problem, TermsOf(context), &error);
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
    std::string device;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("device", &device));
    device_ = device == "GPU" ? Device::kGpu : Device::kCpu;
  }

  void Compute(OpKernelContext* ctx) override {
    std::vector<int64_t> input, filter;
    OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(0), "input_sizes", &input));
    OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(1), "filter_sizes", &filter));
    Problem problem;
    problem.pass = pass_;
    problem.dtype = dtype_;
    problem.device = device_;
    Tensor* result = nullptr;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &result));
    // What is wrong with a problem kconv's own op says.
    bool prefers = false;
    if (attributes_.Shape(input, filter, &problem.shape).ok()) {
      const IntraOpContext context(ctx);
      Terms terms = TermsOf(context);
      terms.with_stock = true;
      if (device_ == Device::kGpu) {
        prefers = PrefersStockOnGpu(attributes_.algorithm, problem,
                                    terms.deterministic);
      } else {
        prefers = Choose(attributes_.algorithm, problem, terms).is_stock;
      }
    }
    result->scalar<bool>()() = prefers;
  }

 private:
  Attributes attributes_;
  DType dtype_;
  Pass pass_;
  Device device_;
};

REGISTER_KERNEL_BUILDER(
    Name("Kconv>PrefersStock").Device(tensorflow::DEVICE_CPU),
    PrefersStockKernel);

#define KCONV_REGISTER(T)                                          \
  REGISTER_KERNEL_BUILDER(Name("Kconv>Conv")                       \
                              .Device(tensorflow::DEVICE_CPU)      \
                              .TypeConstraint<T>("T"),             \
                          CpuConvKernel<T, Pass::kForward>);       \
  REGISTER_KERNEL_BUILDER(Name("Kconv>PrepareFilter")              \
                              .Device(tensorflow::DEVICE_CPU)      \
                              .TypeConstraint<T>("T"),             \
                          PrepareFilterKernel<T>);                 \
  REGISTER_KERNEL_BUILDER(Name("Kconv>ConvBackpropInput")          \
                              .Device(tensorflow::DEVICE_CPU)      \
                              .TypeConstraint<T>("T"),             \
                          CpuConvKernel<T, Pass::kInputGradient>); \
  REGISTER_KERNEL_BUILDER(Name("Kconv>ConvBackpropFilter")         \
                              .Device(tensorflow::DEVICE_CPU)      \
                              .TypeConstraint<T>("T"),             \
                          CpuConvKernel<T, Pass::kFilterGradient>);

KCONV_REGISTER(float)
KCONV_REGISTER(double)
KCONV_REGISTER(Eigen::half)
KCONV_REGISTER(Eigen::bfloat16)

}  // namespace
}  // namespace kconv::tf
