#pragma once
#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace preceptor::test {

/// A program running beside the test, its output going to a file; killed at the end of its scope.
class Process {
 public:
  Process(const std::vector<std::string>& command, const std::filesystem::path& log);
  ~Process();
  Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)), log_(std::move(other.log_)) {}
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// Exit code; -1 when it is still running after `limit`, 128 + n when signal n ended it.
  int wait(std::chrono::seconds limit = std::chrono::seconds(180));
  void kill(int signal);
  /// What it has printed so far, standard output and error together.
  std::string output() const;
  /// Waits until `text` is in the output; "" or what follows it up to the end of the line.
  std::string wait_for(const std::string& text, std::chrono::seconds limit = std::chrono::seconds(60)) const;

 private:
  int pid_ = -1;
  std::filesystem::path log_;
};

}  // namespace preceptor::test
