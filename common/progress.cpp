#include "common/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "common/log.h"

namespace preceptor {

void Progress::update(double done, const std::string& detail) {
  using namespace std::chrono_literals;
  const auto now = std::chrono::steady_clock::now();
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  if (now - start_ < 1s || now - last_ < (terminal ? 100ms : 10s)) return;
  last_ = now;
  const auto elapsed = std::chrono::duration<double>(now - start_).count();
  const auto left = done > 0 ? elapsed * (1 - done) / done : 0;
  const auto percent = int(std::clamp(done, 0.0, 1.0) * 100);
  if (!terminal) return spdlog::info("{}: {}%, {}, about {:.0f} s left", title_, percent, detail, left);
  constexpr int kWidth = 24;
  const auto filled = std::size_t(percent * kWidth / 100);
  const auto line = fmt::format("{} [{}{}] {:3}% {} ({:.0f} s left)", title_, std::string(filled, '='), std::string(kWidth - filled, ' '), percent, detail, left);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

Progress::~Progress() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

}  // namespace preceptor
