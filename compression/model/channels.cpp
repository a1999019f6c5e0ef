#include "compression/model/channels.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "compression/model/cut.h"
#include "compression/model/propagate.h"

namespace preceptor::compression {
namespace {

using models::FlatModel;
using models::GraphValue;

/// One dimension of one parameter, in the order of their first use.
struct Place {
  std::size_t value;
  std::int64_t dim;
  auto operator<=>(const Place&) const = default;
};
using Places = std::vector<Place>;  ///< sorted

std::string layer_name(const std::string& parameter) {
  return parameter.ends_with(".weight") ? parameter.substr(0, parameter.size() - 7) : parameter;
}

/// Groups of the labels that lie in the same places.
class Grouping {
 public:
  Grouping(Channels& channels, Labelled& labelled) : channels_(channels), labelled_(labelled) {}

  void run() {
    find_places();
    std::map<Places, std::vector<std::int64_t>> alike;  // → labels
    for (const auto& [label, places] : places_) alike[{places.begin(), places.end()}].push_back(label);
    for (auto& [places, labels] : alike) {
      const auto fixed = std::erase_if(labels, [&](auto label) {
        if (labelled_.labels.fixed(label)) tell(places, label);
        return labelled_.labels.fixed(label);
      });
      if (labels.size() == 1 && fixed == 0 && places.size() > 1)
        channels_.unprunable.push_back({name_of(places), count_in(name_place(places), labels[0]), "all channels hang together"});
      if (labels.size() > 1 && places.size() > 1) add(places, labels);
    }
    number_values();
  }

 private:
  /// The labels of a parameter's elements along a dimension.
  std::vector<std::int64_t> labels_at(const Place& place) const {
    for (const auto& layer : labelled_.of_value[place.value])
      if (layer.size(place.dim) > 1) {
        const auto flat = layer.flatten().contiguous();
        return {flat.data_ptr<std::int64_t>(), flat.data_ptr<std::int64_t>() + flat.numel()};
      }
    return {};
  }

  void find_places() {
    for (std::size_t v = 0; v < channels_.graph.values.size(); ++v) {
      const auto& value = channels_.graph.values[v];
      if (value.kind != GraphValue::Kind::kParameter) continue;
      for (std::size_t d = 0; d < value.shape.size(); ++d)
        for (const auto label : labels_at({v, std::int64_t(d)})) places_[label].insert({v, std::int64_t(d)});
    }
  }

  Place name_place(const Places& places) const {
    const auto made = std::ranges::find_if(places, [](const Place& p) { return p.dim == 0; });
    return made == places.end() ? places[0] : *made;
  }
  std::string name_of(const Places& places) const { return layer_name(channels_.graph.values[name_place(places).value].name); }
  std::int64_t count_in(const Place& place, std::int64_t label) const { return std::ranges::count(labels_at(place), label); }

  /// Why channels stay, if they are channels of several parameters.
  void tell(const Places& places, std::int64_t label) {
    const auto& reason = labelled_.labels.reason(label);
    if (reason.empty() || places.size() == 1) return;  // pixels of a kernel, channels of the image, states
    const auto name = name_of(places);
    const auto channels = count_in(name_place(places), label);
    auto& all = channels_.unprunable;
    const auto known = std::ranges::find_if(all, [&](const auto& u) { return u.name == name && u.reason == reason; });
    if (known == all.end()) all.push_back({name, channels, reason});
    else known->channels += channels;
  }

  /// Parts of one layer may play several roles: "fc1", "fc1 (2)".
  std::string unused_name(const std::string& name) const {
    auto free = name;
    const auto taken = [&] { return std::ranges::any_of(channels_.groups, [&](const Group& g) { return g.name == free; }); };
    for (int number = 2; taken(); ++number) free = fmt::format("{} ({})", name, number);
    return free;
  }

  void add(const Places& places, const std::vector<std::int64_t>& labels) {
    Group group{unused_name(name_of(places)), {}, std::int64_t(labels.size()), 1, 1, channels_.units};
    std::map<std::int64_t, std::int64_t> unit;
    for (const auto label : labels) unit[label] = std::int64_t(unit.size());
    for (const auto& place : places) {
      auto of_place = labels_at(place);
      for (auto& label : of_place) label = unit.contains(label) ? unit[label] : -1;
      group.slots.push_back({channels_.graph.values[place.value].name, place.dim, torch::tensor(of_place, torch::kInt64)});
    }
    group.channels_a_unit = std::max<std::int64_t>(1, count_in(name_place(places), labels[0]));
    for (const auto label : labelled_.in_pairs)
      if (unit.contains(labelled_.labels.root(label))) group.least = 2;
    for (const auto& [label, number] : unit) numbers_[label] = group.first + number;
    channels_.units += group.units;
    channels_.groups.push_back(std::move(group));
  }

  void number_values() {
    channels_.of_value.resize(labelled_.of_value.size());
    for (std::size_t v = 0; v < labelled_.of_value.size(); ++v)
      for (const auto& layer : labelled_.of_value[v]) {
        auto units = layer.contiguous().clone();
        for (auto& unit : std::span(units.data_ptr<std::int64_t>(), std::size_t(units.numel()))) {
          const auto found = numbers_.find(unit);
          unit = found == numbers_.end() ? -1 : found->second;
        }
        if (units.ge(0).any().item<bool>()) channels_.of_value[v].push_back(units);
      }
  }

  Channels& channels_;
  Labelled& labelled_;
  std::map<std::int64_t, std::set<Place>> places_;   ///< by label
  std::map<std::int64_t, std::int64_t> numbers_;     ///< label → unit
};

Channels channels_of(models::Graph graph) {
  Channels channels;
  auto labelled = propagate(graph);
  channels.graph = std::move(graph);
  Grouping(channels, labelled).run();
  return channels;
}

/// Values that give every element a part in the logits.
void fill(FlatModel& model) {
  RandomStream random(1, "pruning probe");
  auto values = model.store();
  for (const auto& piece : model.space().pieces()) {
    const double fan_in = piece.shape.empty() ? 1 : double(piece.size) / double(piece.shape[0]);
    for (auto& value : std::span(values).subspan(piece.offset, piece.size)) {
      if (piece.role == Role::kNormScale || piece.role == Role::kNormVariance) value = float(random.uniform(0.7, 1.4));
      else value = float(random.normal() * (piece.role == Role::kWeight ? 1 / std::sqrt(fan_in) : 0.1));
    }
  }
  model.load(values);
}

/// Leaves out one unit of each group of a range; true when the smaller network computes what the masked one does.
bool holds(FlatModel& probe, const Channels& channels, std::span<const std::size_t> groups, const at::Tensor& images) {
  Kept kept(std::size_t(channels.units), true);
  for (const auto g : groups) kept[std::size_t(channels.groups[g].first + channels.groups[g].units / 2)] = false;
  try {
    auto smaller = cut(probe, channels, kept);
    if (!smaller) return false;
    smaller->network().eval();
    const auto wanted = run_masked(channels, kept, images), found = smaller->forward(images);
    if (found.sizes() != wanted.sizes()) return false;
    return ((found - wanted).abs().max() <= 1e-3 * wanted.abs().max()).item<bool>();
  } catch (const std::exception&) {  // LibTorch's complaint about shapes, however it comes
    return false;
  }
}

/// Groups that fail by themselves, by halving.
void find_failing(FlatModel& probe, const Channels& channels, std::span<const std::size_t> groups, const at::Tensor& images,
                  std::set<std::size_t>& failing) {
  if (groups.empty() || holds(probe, channels, groups, images)) return;
  if (groups.size() == 1) {
    failing.insert(groups[0]);
    return;
  }
  find_failing(probe, channels, groups.first(groups.size() / 2), images, failing);
  find_failing(probe, channels, groups.subspan(groups.size() / 2), images, failing);
}

/// Takes groups out; the others are numbered anew.
void drop(Channels& channels, const std::set<std::size_t>& failing) {
  auto numbers = torch::full({channels.units + 1}, -1, torch::kInt64);
  std::vector<Group> left;
  channels.units = 0;
  for (std::size_t g = 0; g < channels.groups.size(); ++g) {
    auto& group = channels.groups[g];
    if (failing.contains(g)) {
      channels.unprunable.push_back({group.name, group.units * group.channels_a_unit, "the network's code counts on their number"});
      continue;
    }
    numbers.narrow(0, group.first, group.units).copy_(torch::arange(channels.units, channels.units + group.units));
    group.first = channels.units;
    channels.units += group.units;
    left.push_back(std::move(group));
  }
  channels.groups = std::move(left);
  for (auto& layers : channels.of_value)
    for (auto& layer : layers) layer = numbers.index({torch::where(layer < 0, numbers.size(0) - 1, layer)});
}

}  // namespace

Result<Channels> find_channels(FlatModel& model) {
  const auto& structure = model.spec().structure;
  if (!structure.lora.empty() || !structure.int8.empty())
    return fail(Code::kInvalid, "pruning comes before LoRA and int8 layers: merge or leave them out first");
  torch::NoGradGuard no_grad;
  const auto& task = model.spec().task;
  auto probe = TRY(FlatModel::create(model.spec()));
  fill(probe);
  probe.network().eval();
  auto channels = channels_of(TRY(models::trace(probe.network(), task)));
  RandomStream random(2, "pruning probe");
  auto images = torch::empty({2, task.channels, task.image_size, task.image_size});
  for (auto& pixel : std::span(images.data_ptr<float>(), std::size_t(images.numel()))) pixel = float(random.normal());
  std::vector<std::size_t> all(channels.groups.size());
  for (std::size_t g = 0; g < all.size(); ++g) all[g] = g;
  std::set<std::size_t> failing;
  find_failing(probe, channels, all, images, failing);
  if (!failing.empty()) drop(channels, failing);
  auto parameters = model.network().named_parameters();
  auto buffers = model.network().named_buffers();
  for (auto& value : channels.graph.values)
    if (value.kind == GraphValue::Kind::kParameter)
      value.tensor = parameters.contains(value.name) ? parameters[value.name] : buffers[value.name];
  return channels;
}

}  // namespace preceptor::compression
