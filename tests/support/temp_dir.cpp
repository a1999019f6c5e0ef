#include "tests/support/temp_dir.h"

#include <unistd.h>

#include <cstdlib>

namespace preceptor::test {

TempDir::TempDir() {
  auto name = (std::filesystem::temp_directory_path() / "preceptor-test-XXXXXX").string();
  path_ = ::mkdtemp(name.data());
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path shared_data(const std::string& name) {
  const char* root = std::getenv("PRECEPTOR_SHARED");
  const auto path = std::filesystem::path(root ? root : "../shared") / "data" / name;
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

}  // namespace preceptor::test
