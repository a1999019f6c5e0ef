#pragma once
#include <filesystem>
#include <string>

namespace preceptor::test {

/// A fresh directory under the system's temporary one, removed at the end of its scope.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// ../shared/data/<name> beside the checkout, or PRECEPTOR_SHARED/data/<name>; empty when not there:
///   const auto npz = shared_data("pneumoniamnist/pneumoniamnist.npz");
///   if (npz.empty()) GTEST_SKIP() << "needs ../shared/data/pneumoniamnist";
std::filesystem::path shared_data(const std::string& name);

}  // namespace preceptor::test
