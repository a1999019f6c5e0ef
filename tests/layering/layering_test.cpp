#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Names = std::set<std::string>;

/// The folder table of the architecture, as data: what each folder may include besides itself. A
/// folder that is not here may not exist; a folder need not exist yet.
const std::map<std::string, Names>& table() {
  static const auto kTable = [] {
    std::map<std::string, Names> t;
    const auto with = [](Names names, const Names& more) {
      names.insert(more.begin(), more.end());
      return names;
    };
    t["common"] = {};
    t["models"] = {"common"};
    t["data"] = {"common"};
    t["training"] = {"common", "models", "data"};
    t["distill"] = with(t["training"], {"training"});
    t["compression/update"] = {"common"};
    t["compression/model"] = with(t["distill"], {"distill"});
    t["privacy"] = {"common"};
    t["transport"] = {"common"};
    t["plan"] = with(t["distill"], {"distill", "compression/update", "privacy"});
    const auto below = with(
        t["plan"], {"plan", "compression/update", "compression/model", "privacy", "transport"});
    t["coordinator"] = t["node"] = below;  // and never each other
    t["sim"] = with(below, {"coordinator", "node"});
    t["deploy"] = with(t["compression/model"], {"compression/model", "compression/update"});
    t["app"] = with(t["sim"], {"sim", "deploy"});
    return t;
  }();
  return kTable;
}

/// Folders in which no torch header may be seen, not even through another header.
const Names kTorchFree{"common", "data", "compression/update", "privacy", "transport", "plan"};
/// The same for single files: the state machines, which run under ThreadSanitizer without LibTorch,
/// the kernels' inner parts and the plan of the inference engine.
const Names kTorchFreeFiles{"coordinator/round", "coordinator/coordinator", "coordinator/aggregate",
                            "coordinator/options", "node/session", "models/kernels/selective_scan_simd",
                            "models/kernels/bi_wkv_simd", "deploy/engine_plan", "deploy/engine_layout",
                            "deploy/choose", "deploy/energy", "deploy/kernels/elementwise",
                            "deploy/kernels/gemm", "deploy/kernels/int8", "deploy/kernels/window"};
/// Folders that hold no part of the program.
const Names kOutside{"tests", "bench", "fuzz", "build", "cmake", "configs", "docs", "packaging"};

struct Include {
  int line;
  std::string target;
  bool quoted;
};
using Sources = std::map<std::string, std::string>;  ///< path from the root → text

std::vector<Include> includes_of(const std::string& text) {
  static const std::regex kInclude(R"(^\s*#\s*include\s*(["<])([^">]+)[">])");
  std::vector<Include> found;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::smatch match;
    if (std::regex_search(line, match, kInclude))
      found.push_back({number, match[2], match[1] == "\""});
  }
  return found;
}

/// "compression/update" of "compression/update/codec.h"; "" where the table has no such folder.
std::string folder_of(const std::string& path) {
  for (fs::path at = fs::path(path).parent_path(); !at.empty(); at = at.parent_path())
    if (table().contains(at.string())) return at.string();
  return "";
}

bool is_torch(const std::string& header) {
  return header.starts_with("torch/") || header.starts_with("ATen/") || header.starts_with("c10/");
}

bool torch_free(const std::string& path) {
  return kTorchFree.contains(folder_of(path)) ||
         kTorchFreeFiles.contains(fs::path(path).replace_extension().string());
}

/// The chain of includes from `path` to a torch header, "a.h -> b.h -> torch/nn.h"; "" without one.
std::string way_to_torch(const Sources& sources, const std::string& path, Names& seen) {
  const auto source = sources.find(path);
  if (source == sources.end() || !seen.insert(path).second) return "";
  for (const auto& include : includes_of(source->second)) {
    const auto rest =
        is_torch(include.target) ? include.target : way_to_torch(sources, include.target, seen);
    if (!rest.empty()) return path + " -> " + rest;
  }
  return "";
}

/// One line "file:line: rule" for each include that breaks the table.
std::vector<std::string> broken_rules(const Sources& sources) {
  std::vector<std::string> broken;
  for (const auto& [path, text] : sources) {
    const auto folder = folder_of(path);
    if (folder.empty()) {
      broken.push_back(path + ":1: its folder is not in the architecture's table");
      continue;
    }
    for (const auto& [line, target, quoted] : includes_of(text)) {
      const auto say = [&](const std::string& rule) {
        broken.push_back(fmt::format("{}:{}: {}", path, line, rule));
      };
      if (quoted) {
        const auto to = folder_of(target);
        if (to.empty())
          say(fmt::format("\"{}\" is not named from the root by a folder of the table", target));
        else if (to != folder && !table().at(folder).contains(to))
          say(fmt::format("{} may not include {} ({}); it may include: {}", folder, to, target,
                          fmt::join(table().at(folder), ", ")));
      }
      Names seen;
      const auto chain = is_torch(target) ? target
                         : quoted         ? way_to_torch(sources, target, seen)
                                          : "";
      if (torch_free(path) && !chain.empty()) say("must stay free of torch, but includes " + chain);
    }
  }
  return broken;
}

Sources read_sources() {
  Sources sources;
  for (const auto& top : fs::directory_iterator(".")) {
    const auto name = top.path().filename().string();
    if (!top.is_directory() || kOutside.contains(name) || name.starts_with(".")) continue;
    for (const auto& entry : fs::recursive_directory_iterator(top.path())) {
      const auto extension = entry.path().extension();
      if (extension != ".h" && extension != ".cpp") continue;
      std::stringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      sources[entry.path().lexically_normal().string()] = text.str();
    }
  }
  return sources;
}

TEST(Layering, EveryIncludeOfTheProgramIsAllowedByTheTable) {
  const auto sources = read_sources();
  ASSERT_TRUE(sources.contains("coordinator/round.cpp")) << "run from the root of the sources";
  const auto broken = broken_rules(sources);
  EXPECT_THAT(broken, IsEmpty()) << fmt::format("{}", fmt::join(broken, "\n"));
}

TEST(Layering, EveryTorchFreeFileThatIsNamedExists) {
  const auto sources = read_sources();
  for (const auto& file : kTorchFreeFiles) EXPECT_TRUE(sources.contains(file + ".h")) << file;
}

TEST(Layering, TheTableHasNoCircle) {
  for (const auto& [folder, may] : table())
    for (const auto& other : may) {
      ASSERT_TRUE(table().contains(other)) << other;
      EXPECT_FALSE(table().at(other).contains(folder)) << folder << " and " << other;
    }
}

// The checks below show that a broken rule is seen: without them the test above could pass for
// ever.

TEST(Layering, NodeAndCoordinatorMayNotIncludeEachOther) {
  EXPECT_THAT(broken_rules({{"node/a.cpp", "\n#include \"coordinator/round.h\"\n"},
                            {"coordinator/b.h", "#include \"node/session.h\"\n"}}),
              ElementsAre(HasSubstr("coordinator/b.h:1: coordinator may not include node"),
                          HasSubstr("node/a.cpp:2: node may not include coordinator")));
}

TEST(Layering, ALowerFolderMayNotIncludeAHigherOne) {
  EXPECT_THAT(broken_rules({{"data/a.h", "#include \"training/batch.h\"\n"}}),
              ElementsAre(HasSubstr("data may not include training")));
  EXPECT_THAT(
      broken_rules({{"compression/update/a.h", "#include \"compression/model/prune.h\"\n"}}),
      ElementsAre(HasSubstr("compression/update may not include compression/model")));
  EXPECT_THAT(broken_rules({{"models/cnn/a.cpp", "#include \"models/model.h\"\n"},
                            {"plan/plan.h", "#include \"compression/update/update.h\"\n"},
                            {"sim/a.h", "#include \"node/a.h\"\n#include \"coordinator/b.h\"\n"}}),
              IsEmpty());
}

TEST(Layering, AnIncludeThatIsNotNamedFromTheRootIsSeen) {
  EXPECT_THAT(broken_rules({{"data/a.cpp", "#include \"a.h\"\n#include \"tests/made.h\"\n"}}),
              ElementsAre(HasSubstr("data/a.cpp:1"), HasSubstr("data/a.cpp:2")));
}

TEST(Layering, AFolderThatTheTableDoesNotKnowIsSeen) {
  EXPECT_THAT(broken_rules({{"helpers/a.h", ""}}), ElementsAre(HasSubstr("helpers/a.h:1")));
}

TEST(Layering, TorchIsSeenInATorchFreeFolderAndInAStateMachine) {
  EXPECT_THAT(broken_rules({{"data/a.h", "#include <ATen/core/Tensor.h>\n"},
                            {"coordinator/round.cpp", "\n\n# include <torch/torch.h>\n"},
                            {"node/session.h", "#include <c10/util/Half.h>\n"},
                            {"node/local_round.cpp", "#include <torch/torch.h>\n"}}),
              ElementsAre(HasSubstr("coordinator/round.cpp:3"), HasSubstr("data/a.h:1"),
                          HasSubstr("node/session.h:1")));
}

TEST(Layering, TorchIsSeenThroughAnotherHeader) {
  EXPECT_THAT(broken_rules({{"node/session.cpp", "#include \"node/a.h\"\n"},
                            {"node/a.h", "#include \"training/batch.h\"\n"},
                            {"training/batch.h", "#include <ATen/core/Tensor.h>\n"}}),
              ElementsAre("node/session.cpp:1: must stay free of torch, but includes node/a.h -> "
                          "training/batch.h -> ATen/core/Tensor.h"));
}

}  // namespace
