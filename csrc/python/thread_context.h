// Threads of the module's own, where no framework lends any.

#ifndef KCONV_PYTHON_THREAD_CONTEXT_H_
#define KCONV_PYTHON_THREAD_CONTEXT_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

#include "conv.h"

namespace kconv {

class ThreadContext : public Context {
 public:
  explicit ThreadContext(int threads) : threads_(threads) { isa = BestIsa(); }

  int threads() const override { return threads_; }

  void ParallelFor(
      int64_t items, double,
      const std::function<void(int64_t, int64_t, int)>& body) override {
    if (items <= 0) return;
    const int workers = static_cast<int>(std::min<int64_t>(threads_, items));
    if (workers == 1) return body(0, items, 0);
    std::atomic<int64_t> next(0);
    auto work = [&](int worker) {
      for (int64_t i; (i = next.fetch_add(1)) < items;) body(i, i + 1, worker);
    };
    std::vector<std::thread> others;
    others.reserve(workers);
    try {
      for (int i = 1; i < workers; ++i) others.emplace_back(work, i);
    } catch (const std::system_error&) {
      // The system gives no more threads: those that there are do all.
    }
    work(0);
    for (std::thread& other : others) other.join();
  }

 private:
  const int threads_;
};

}  // namespace kconv

#endif  // KCONV_PYTHON_THREAD_CONTEXT_H_
