#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "models/latency.h"
#include "models/stem.h"

namespace preceptor::app {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  models::TaskOptions task{2, 1, 0};  ///< image size 0: 28 px, or the least of 64 and 224 that the model takes
  std::string paradigm, kind;
  bool json = false, no_timing = false;
};

/// A size of an architecture, with what was measured or why it cannot be built.
struct Row {
  const models::Architecture* architecture;
  models::ModelSpec spec;
  std::size_t parameters = 0;
  std::int64_t macs = 0;
  std::optional<double> milliseconds;
  std::string refusal;
};

Result<models::FlatModel> build(const models::ModelOptions& size, models::TaskOptions task) {
  if (task.image_size > 0) return models::create_at_size(size, task);
  auto model = models::create_at_size(size, (task.image_size = 28, task));
  for (const int larger : {64, 224})
    if (!model) model = models::create_at_size(size, (task.image_size = larger, task));
  return model;
}

Row measure(const models::Architecture& architecture, const models::ModelOptions& size, const Arguments& a) {
  Row row{&architecture, {size, a.task}, 0, 0, {}, {}};
  auto model = build(size, a.task);
  if (!model) {
    row.refusal = model.error().message;
    return row;
  }
  model->initialise(RandomStream(1, "models"));
  row.spec = model->spec();
  row.parameters = model->space().trainable();
  row.macs = models::count_macs(model->network(), row.spec.task);
  if (!a.no_timing) row.milliseconds = models::milliseconds_per_image(*model);
  return row;
}

Json to_json(const Row& row) {
  const auto& model = row.spec.model;
  Json json{{"name", model.name}, {"variant", model.variant}, {"width", model.width}};
  const bool built = row.refusal.empty();
  const auto set = [&](const char* key, auto value) { json[key] = built ? Json(value) : Json(); };
  set("stem", model.stem);
  json["paradigm"] = row.architecture->paradigm;
  json["task"] = row.architecture->task;
  set("image_size", row.spec.task.image_size);
  set("parameters", row.parameters);
  set("macs", row.macs);
  json["milliseconds"] = row.milliseconds ? Json(*row.milliseconds) : Json();
  json["paper"] = row.architecture->paper;
  if (!built) json["refusal"] = row.refusal;
  return json;
}

/// "1,366,792"
std::string grouped(std::int64_t count) {
  auto digits = std::to_string(count);
  for (auto at = std::ssize(digits) - 3; at > 0; at -= 3) digits.insert(std::size_t(at), ",");
  return digits;
}

void print(const std::vector<Row>& rows) {
  using Cells = std::array<std::string, 10>;
  std::vector<Cells> table{{"model", "variant", "width", "stem", "paradigm", "task", "px", "parameters", "MMAC", "ms"}};
  for (const auto& row : rows) {
    const auto& model = row.spec.model;
    Cells cells{model.name, model.variant.empty() ? "-" : model.variant, fmt::format("{:g}", model.width)};
    cells[4] = row.architecture->paradigm;
    cells[5] = row.architecture->task;
    if (row.refusal.empty()) {
      cells[3] = model.stem;
      cells[6] = std::to_string(row.spec.task.image_size);
      cells[7] = grouped(std::int64_t(row.parameters));
      cells[8] = fmt::format("{:.1f}", double(row.macs) / 1e6);
      cells[9] = row.milliseconds ? fmt::format("{:.2f}", *row.milliseconds) : "-";
    }
    table.push_back(cells);
  }
  std::array<std::size_t, 10> widths{};
  for (const auto& cells : table)
    for (std::size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], cells[i].size());
  for (std::size_t r = 0; r < table.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < table[r].size(); ++i)  // words to the left, numbers to the right
      line += i < 6 && i != 2 ? fmt::format("{:<{}}  ", table[r][i], widths[i]) : fmt::format("{:>{}}  ", table[r][i], widths[i]);
    if (r == 0) line += "paper";
    else if (rows[r - 1].refusal.empty()) line += rows[r - 1].architecture->paper;
    else line = fmt::format("{:<{}}  {}", table[r][0], widths[0], rows[r - 1].refusal);
    std::cout << line << "\n";
  }
}

Result<void> list(const Arguments& a) {
  std::vector<Row> rows;
  for (const auto& name : models::zoo().names()) {
    const auto& architecture = **models::zoo().find(name);
    if (!a.paradigm.empty() && architecture.paradigm != a.paradigm) continue;
    if (!a.kind.empty() && architecture.task != a.kind) continue;
    for (const auto& size : architecture.sizes) rows.push_back(measure(architecture, size, a));
  }
  if (rows.empty()) return fail(Code::kInvalid, "no model of paradigm '{}' and task '{}'", a.paradigm, a.kind);
  if (!a.json) {
    print(rows);
    return {};
  }
  auto json = Json::array();
  for (const auto& row : rows) json.push_back(to_json(row));
  std::cout << json.dump(2) << "\n";
  return {};
}

const RegisterCommand kModels{
    "models",
    {"List the zoo: sizes, parameters, multiply-adds, and time for one image on this machine",
     "preceptor models --classes 9 --channels 3 --size 64 --paradigm CNN",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       app.add_option("--classes", a->task.classes)->check(CLI::Range(1, 100000))->capture_default_str();
       app.add_option("--channels", a->task.channels)->check(CLI::IsMember({1, 3}))->capture_default_str();
       app.add_option("--size", a->task.image_size, "pixels a side; default: the least of 28, 64 and 224 that a model takes")
           ->check(CLI::Range(8, 1024));
       app.add_option("--paradigm", a->paradigm, "only these: CNN, Transformer, linear");
       app.add_option("--task", a->kind, "only these: classification, segmentation");
       app.add_flag("--no-timing", a->no_timing, "skip the milliseconds (median of 15 images, one thread)");
       app.add_flag("--json", a->json, "print JSON instead of a table");
       return [a] { return finish(list(*a)); };
     }}};

}  // namespace
}  // namespace preceptor::app
