// What a call of a pass is given, as both ways of computing it see it.

#ifndef KCONV_ALGORITHMS_FFT_CALL_H_
#define KCONV_ALGORITHMS_FFT_CALL_H_

#include <algorithm>
#include <cstdint>

#include "algorithms/fft/operand.h"
#include "algorithms/fft/plan.h"
#include "algorithms/fft/transforms.h"
#include "conv.h"

namespace kconv::fft {

template <typename Element>
class Call {
 protected:
  using Sum = SumType<Element>;

  Call(const Problem& problem, const Plan& plan, const ConvArgs& args,
       Context* ctx)
      : p_(plan),
        pass_(problem.pass),
        transforms_(TransformsFor<Element>(ctx->isa)),
        grid_(GridFor(plan)),
        input_(ImageOf(problem.shape, plan.tiling, false,
                       static_cast<Element*>(args.input))),
        output_(ImageOf(problem.shape, plan.tiling, true,
                        static_cast<Element*>(args.output))),
        filter_(FilterOf(problem.shape, plan.tiling,
                         static_cast<Element*>(args.filter))),
        taps_{plan.tiling.axes[0].Taps(), plan.tiling.axes[1].Taps()},
        scale_(Sum(0.25) / static_cast<Sum>(grid_.n[0] * grid_.n[1])),
        ctx_(ctx),
        bias_(static_cast<const Element*>(args.bias)),
        finishes_(!problem.epilogue.Empty()),
        activation_(problem.epilogue.activation) {
    ctx_->isa_ran = transforms_.isa;
  }

  static Grid<Sum> GridFor(const Plan& plan) {
    return GridOf<Sum>(plan.tiling.axes[0].size(), plan.tiling.axes[1].size());
  }

  bool IsBackwards() const { return pass_ == Pass::kInputGradient; }
  bool IsFilter() const { return pass_ == Pass::kFilterGradient; }
  // The images of the passes that write one.
  const Operand<Element>& Source() const {
    return IsBackwards() ? output_ : input_;
  }
  const Operand<Element>& Result() const {
    return IsBackwards() ? input_ : output_;
  }

  // How the lanes from a channel on, `stride` apart, end. Whole vectors of the
  // bias are read, from `room` for kMaxLanes.
  Ending<Sum> EndingOf(int64_t channel, int64_t stride, int64_t lanes,
                       Sum* room) const {
    if (!finishes_) return {scale_};
    std::fill_n(room, kMaxLanes, Sum(0));
    for (int64_t l = 0; bias_ != nullptr && l < lanes; ++l) {
      room[l] = Widen(bias_[channel + l * stride]);
    }
    return {scale_, room, activation_};
  }

  const Plan& p_;
  const Pass pass_;
  const Transforms<Element>& transforms_;
  const Grid<Sum> grid_;
  const Operand<Element> input_, output_, filter_;
  const Range taps_[2];
  const Sum scale_;
  Context* const ctx_;

 private:
  const Element* const bias_;
  const bool finishes_;
  const Activation activation_;
};

}  // namespace kconv::fft

#endif  // KCONV_ALGORITHMS_FFT_CALL_H_
