#include "deploy/energy.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace preceptor::deploy {
namespace {

std::optional<std::uint64_t> read_count(const std::string& file) {
  std::uint64_t value = 0;
  if (std::ifstream in(file); in >> value) return value;
  return {};
}

}  // namespace

EnergyMeter::EnergyMeter(const std::string& root) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root, error)) {
    const auto name = entry.path().filename().string();
    if (std::ranges::count(name, ':') != 1) continue;  // "intel-rapl:0" is a package; "intel-rapl:0:1" a part of it
    const auto file = (entry.path() / "energy_uj").string();
    const auto start = read_count(file);
    if (start) packages_.push_back({file, *start, read_count((entry.path() / "max_energy_range_uj").string()).value_or(0)});
  }
}

std::optional<double> EnergyMeter::joules() const {
  if (packages_.empty()) return {};
  double sum = 0;
  for (const auto& package : packages_) {
    const auto now = read_count(package.file);
    if (!now) return {};
    sum += double(*now >= package.start ? *now - package.start : *now + package.range - package.start) / 1e6;
  }
  return sum;
}

}  // namespace preceptor::deploy
