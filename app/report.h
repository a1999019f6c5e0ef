#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/result.h"

namespace preceptor::app {

/// Writes <run>/report.html from <run>/summary.json, rounds.jsonl and config.yaml: one
/// self-contained page, readable on a phone and on paper. The files are read with distrust: they
/// may come from elsewhere.
Result<void> write_report(const std::filesystem::path& run);

/// The summary as a few lines and the verdict table, for a terminal.
std::string summary_text(const nlohmann::ordered_json& summary);

}  // namespace preceptor::app
