#include "tests/support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <thread>

namespace preceptor::test {

using namespace std::chrono_literals;

Process::Process(const std::vector<std::string>& command, const std::filesystem::path& log) : log_(log) {
  std::vector<char*> argv;
  for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  std::ofstream(log_).close();
  pid_ = ::fork();
  if (pid_ != 0) return;
  const int file = ::open(log_.c_str(), O_WRONLY | O_APPEND);
  ::dup2(file, STDOUT_FILENO);
  ::dup2(file, STDERR_FILENO);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

Process::~Process() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

int Process::wait(std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    if (std::chrono::steady_clock::now() > end) return -1;
    std::this_thread::sleep_for(20ms);
  }
}

void Process::kill(int signal) {
  if (pid_ > 0) ::kill(pid_, signal);
}

std::string Process::output() const {
  std::stringstream text;
  text << std::ifstream(log_).rdbuf();
  return text.str();
}

std::string Process::wait_for(const std::string& text, std::chrono::seconds limit) const {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < end) {
    const auto all = output();
    const auto at = all.find(text);
    const auto line_end = at == std::string::npos ? at : all.find('\n', at);
    if (line_end != std::string::npos) return all.substr(at + text.size(), line_end - at - text.size());
    std::this_thread::sleep_for(20ms);
  }
  return "";
}

}  // namespace preceptor::test
