#include "app/report.h"

namespace preceptor::app {
Result<void> write_report(const std::filesystem::path&) { return {}; }
std::string summary_text(const nlohmann::ordered_json& summary) { return summary.dump(1) + "\n"; }
}  // namespace preceptor::app
