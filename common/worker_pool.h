#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace preceptor {

/// Threads that run long jobs and hand their answers to the one thread that drives a state machine.
/// submit and wait are called by that thread only. Destruction waits for the jobs that have begun and
/// forgets the others.
template <class Answer>
class WorkerPool {
 public:
  using Job = std::function<Answer(int worker)>;

  explicit WorkerPool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this, i] { run(i); });
  }
  ~WorkerPool() {
    {
      std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_workers_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Larger priorities start first (give the size of the work: the longest first packs best).
  void submit(std::uint64_t priority, Job job) {
    {
      std::lock_guard lock(mutex_);
      waiting_.emplace(priority, std::move(job));
      ++open_;
    }
    wake_workers_.notify_one();
  }
  /// The next answer in order of completion, or nothing within the timeout.
  template <class Duration>
  std::optional<Answer> wait(Duration timeout) {
    std::unique_lock lock(mutex_);
    if (!wake_driver_.wait_for(lock, timeout, [this] { return !answers_.empty(); })) return std::nullopt;
    std::optional<Answer> answer(std::move(answers_.front()));
    answers_.pop_front();
    --open_;
    return answer;
  }
  /// Jobs submitted whose answer was not yet taken.
  int open() const { return open_; }

 private:
  void run(int worker) {
    for (;;) {
      Job job;
      {
        std::unique_lock lock(mutex_);
        wake_workers_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
        if (closing_) return;
        job = std::move(waiting_.begin()->second);
        waiting_.erase(waiting_.begin());
      }
      auto answer = job(worker);
      {
        std::lock_guard lock(mutex_);
        answers_.push_back(std::move(answer));
      }
      wake_driver_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_workers_, wake_driver_;
  std::multimap<std::uint64_t, Job, std::greater<>> waiting_;
  std::deque<Answer> answers_;
  std::vector<std::thread> threads_;
  int open_ = 0;
  bool closing_ = false;
};

}  // namespace preceptor
