#pragma once
#include <initializer_list>
#include <string>
#include <utility>

namespace preceptor::models {

/// `name` with its beginning replaced by the first pair that fits; as it is where none does.
inline std::string rename_start(const std::string& name, std::initializer_list<std::pair<const char*, const char*>> pairs) {
  for (const std::pair<std::string, std::string> pair : pairs)
    if (name.starts_with(pair.first)) return pair.second + name.substr(pair.first.size());
  return name;
}

/// torchvision numbers a MobileNet's blocks in one row, timm by stage and place: block 3 of stages of 1, 2, 3 is "1.1".
inline std::string stage_and_place(int block, std::initializer_list<int> stages) {
  int stage = 0;
  for (const int blocks : stages) {
    if (block < blocks) break;
    block -= blocks;
    ++stage;
  }
  return std::to_string(stage) + "." + std::to_string(block);
}

}  // namespace preceptor::models
