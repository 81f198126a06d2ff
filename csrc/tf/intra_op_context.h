// Lends the core TensorFlow's intra-op threads.

#ifndef KCONV_TF_INTRA_OP_CONTEXT_H_
#define KCONV_TF_INTRA_OP_CONTEXT_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "conv.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/lib/core/threadpool.h"

namespace kconv::tf {

// The calling thread and all but one of the pool's take chunks of the items
// from one counter. The pool's own ParallelFor has the caller work beside every
// thread of the pool, one more than there are cores: on two cores that cost a
// tenth of the speed.
class IntraOpContext : public Context {
 public:
  explicit IntraOpContext(tensorflow::OpKernelContext* ctx)
      : pool_(ctx->device()->tensorflow_cpu_worker_threads()->workers),
        threads_(std::max(1, pool_->NumThreads())) {
    isa = BestIsa();
  }

  int threads() const override { return threads_; }

  void ParallelFor(
      int64_t items, double seconds_per_item,
      const std::function<void(int64_t, int64_t, int)>& body) override {
    if (items <= 0) return;
    // What a thread must have to do to be worth waking, and at a time.
    constexpr double kWorthWaking = 2e-5;
    const auto chunk = static_cast<int64_t>(std::clamp(
        kWorthWaking / std::max(seconds_per_item, 1e-12), 1.0, 1e15));
    const int64_t chunks = (items - 1) / chunk + 1;
    const int workers = static_cast<int>(std::min<int64_t>(threads_, chunks));
    if (workers == 1) return body(0, items, 0);

    auto work = std::make_shared<Work>(items, chunk, &body);
    for (int i = 1; i < workers; ++i) {
      pool_->Schedule([work] { work->Share(); });
    }
    work->Share();
    work->Wait();
  }

 private:
  // Outlives the call where a thread comes too late to find anything left.
  class Work {
   public:
    Work(int64_t items, int64_t chunk,
         const std::function<void(int64_t, int64_t, int)>* body)
        : items_(items), chunk_(chunk), body_(body) {}

    void Share() noexcept {
      const int worker = workers_.fetch_add(1);
      int64_t done = 0;
      for (int64_t begin; (begin = next_.fetch_add(
                               chunk_, std::memory_order_relaxed)) < items_;) {
        const int64_t end = std::min(begin + chunk_, items_);
        (*body_)(begin, end, worker);
        done += end - begin;
      }
      if (done == 0) return;
      std::lock_guard<std::mutex> lock(mutex_);
      done_ += done;
      if (done_ == items_) all_done_.notify_all();
    }

    void Wait() {
      std::unique_lock<std::mutex> lock(mutex_);
      all_done_.wait(lock, [this] { return done_ == items_; });
    }

   private:
    const int64_t items_;
    const int64_t chunk_;
    const std::function<void(int64_t, int64_t, int)>* const body_;
    std::atomic<int> workers_{0};
    std::atomic<int64_t> next_{0};
    std::mutex mutex_;
    std::condition_variable all_done_;
    int64_t done_ = 0;
  };

  tensorflow::thread::ThreadPool* const pool_;
  const int threads_;
};

}  // namespace kconv::tf

#endif  // KCONV_TF_INTRA_OP_CONTEXT_H_
