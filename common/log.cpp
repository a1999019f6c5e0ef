#include "common/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <cstdlib>

namespace preceptor {

void set_up_log() {
  auto logger = std::make_shared<spdlog::logger>(
      "preceptor", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%H:%M:%S %^%-5l%$ %v");
  const char* level = std::getenv("PRECEPTOR_LOG");
  const auto wanted = spdlog::level::from_str(level ? level : "info");
  // from_str makes "off" of any word that it does not know.
  const bool unknown = wanted == spdlog::level::off && std::string_view(level) != "off";
  logger->set_level(unknown ? spdlog::level::info : wanted);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace preceptor
