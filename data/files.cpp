#include "data/files.h"

#include <algorithm>

#include "common/file.h"

namespace preceptor::data {

namespace fs = std::filesystem;

bool is_image(const fs::path& path) {
  auto extension = path.extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return char(std::tolower(c)); });
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg" || extension == ".bmp";
}

bool by_name(const std::string& a, const std::string& b) {
  const auto number = [](const std::string& s) {
    return !s.empty() && s.find_first_not_of("0123456789") == s.npos;
  };
  if (number(a) != number(b)) return number(a);
  if (number(a) && a.size() != b.size()) return a.size() < b.size();
  return a < b;
}

std::int32_t place(const std::vector<std::string>& names, const std::string& name) {
  return std::int32_t(std::ranges::lower_bound(names, name, by_name) - names.begin());
}

Result<Split> split_named(const std::string& name) {
  if (name.empty()) return Split::kUnassigned;
  if (name == "train" || name == "training") return Split::kTrain;
  if (name == "val" || name == "valid" || name == "validation") return Split::kValidation;
  if (name == "test") return Split::kTest;
  return fail(Code::kInvalid, "split '{}'; train, val, test or nothing is wanted", name);
}

Result<fs::path> below(const fs::path& root, const std::string& file) {
  std::error_code error;
  const auto path = fs::weakly_canonical(root / file, error);
  const auto relative = path.lexically_relative(root);
  if (error || fs::path(file).is_absolute() || relative.empty() || *relative.begin() == "..")
    return fail(Code::kRefused, "'{}' leads out of the folder; only images below it are read",
                file);
  return path;
}

Result<Bytes> read_image_file(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return fail(Code::kNotFound, "missing");
  if (!fs::is_regular_file(path, error))
    return fail(Code::kInvalid, "not a file");  // a pipe would block
  auto bytes = read_file(path, kMaxImageFile);
  if (bytes) return bytes;
  if (bytes.error().code == Code::kRefused) return fail(Code::kRefused, "over {} bytes", kMaxImageFile);
  return fail(Code::kIo, "cannot be read");
}

}  // namespace preceptor::data
