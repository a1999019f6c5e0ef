#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace preceptor::deploy {

/// Joules of the processor packages since the meter was made, as Linux's powercap (Intel's and AMD's RAPL) counts them;
/// other work on the machine is in them.
class EnergyMeter {
 public:
  /// root: where the packages' folders are, "intel-rapl:0" and so on.
  explicit EnergyMeter(const std::string& root = "/sys/class/powercap");
  /// nullopt: this machine, or this user's rights, cannot tell.
  std::optional<double> joules() const;

 private:
  struct Package {
    std::string file;
    std::uint64_t start, range;  ///< microjoules; the counter starts anew after `range`
  };
  std::vector<Package> packages_;
};

}  // namespace preceptor::deploy
