#include "node/site.h"

#include "common/log.h"
#include "compression/update/sum_step.h"
#include "plan/session_context.h"

namespace preceptor::node {

Site::Site(std::string name, const data::Splits& data, const LimitOptions& limits, PrivacyPlace place, MaskingPlace masking)
    : limits_(limits), place_(std::move(place)), session_(data.train.size(), std::move(masking), limits.secure_aggregation) {
  state_.name = std::move(name);
  state_.data = &data;
}

Site::Todo Site::step(Event event, Time now) {
  Todo todo;
  run(std::move(event), todo, now);
  return todo;
}

void Site::run(Event event, Todo& todo, Time now) {
  for (auto& effect : session_.step(std::move(event), now)) std::visit([&](auto& e) { act(e, todo, now); }, effect);
}

/// A network of the coordinator's choice; what LibTorch throws (no memory, say) must not end the daemon.
static Result<models::FlatModel> build_guarded(const models::ModelSpec& spec, const std::string& device = "cpu") {
  try {
    return models::FlatModel::create(spec, device);
  } catch (const std::exception& e) {
    const std::string text = e.what();
    return fail(Code::kRefused, "{}: {}", spec.model.name, text.substr(0, text.find('\n')));
  }
}

/// The plan, read and held against this site's limits and its data.
PlanReady Site::weigh(const std::string& text) {
  const auto refuse = [](const std::string& why) { return PlanReady{false, why, "", 0}; };
  auto plan = read_plan(text, *state_.data);
  if (!plan) return refuse(plan.error().message);
  if (plan->rounds > limits_.max_rounds) return refuse(fmt::format("{} rounds; limits.max_rounds is {}", plan->rounds, limits_.max_rounds));
  if (plan->training.epochs > limits_.max_epochs)
    return refuse(fmt::format("{} epochs a round; limits.max_epochs is {}", plan->training.epochs, limits_.max_epochs));
  if (plan->training.threads > limits_.max_threads)
    return refuse(fmt::format("{} threads; limits.max_threads is {}", plan->training.threads, limits_.max_threads));
  auto student = build_guarded(plan->student);
  if (!student) return refuse(student.error().message);
  const auto mib = double(student->space().size()) * 4 / (1 << 20);
  std::optional<privacy::SessionContext> context;
  std::optional<compression::RingCodec> ring;
  if (plan->update.profile == "secure") {
    auto made = compression::RingCodec::create(plan->update.ring, student->space());
    if (!made) return refuse(made.error().message);
    ring.emplace(std::move(*made));
    if (plan->privacy.secure_aggregation.masked()) context = session_context(*plan, text, *ring);
  } else if (plan->privacy.secure_aggregation.masked()) {
    return refuse("privacy.secure_aggregation: masks need update.profile: secure");
  }
  if (limits_.secure_aggregation.required && !context)
    return refuse("its updates are not masked; limits.secure_aggregation.required is true");
  if (limits_.secure_aggregation.recompute && context && plan->downlink.mode != "sum")
    return refuse(fmt::format("downlink.mode: {} gives this site no way to make the models itself; limits.secure_aggregation.recompute is true", plan->downlink.mode));
  auto sums = settle_downlink(*plan, student->space(), ring ? &*ring : nullptr);
  if (!sums) return refuse(sums.error().message);
  if (mib > limits_.model_mib) return refuse(fmt::format("a student of {:.1f} MiB; limits.model_mib is {}", mib, limits_.model_mib));
  state_.guard.reset();  // a job before may hold the ledger
  auto guard = PrivacyGuard::create(*plan, student->space(), state_.data->train, state_.name, limits_.privacy, place_);
  if (!guard) return refuse(guard.error().message);
  state_.guard = std::move(*guard);
  plan_ = std::move(*plan);
  const bool teacher = !plan_.teacher.sha256.empty() && double(plan_.teacher.bytes) <= limits_.teacher_mib * (1 << 20);
  if (!plan_.teacher.sha256.empty() && !teacher)
    spdlog::info("{}: goes without the teacher of {} bytes; limits.teacher_mib is {}", state_.name, plan_.teacher.bytes, limits_.teacher_mib);
  return {true, "", teacher ? plan_.teacher.sha256 : "", plan_.teacher.bytes, std::move(context), std::move(*sums)};
}

/// How this site gets the next model from the one that it has.
Result<std::optional<PlanReady::PublishedSums>> Site::settle_downlink(const Plan& plan, const ParameterSpace& student, const compression::RingCodec* ring) {
  downlink_.reset();
  if (plan.downlink.mode == "auto") return fail(Code::kRefused, "downlink.mode: auto is for the coordinator to settle");
  if (plan.downlink.mode == "delta") downlink_ = std::make_unique<compression::ModelDelta>(TRY(compression::ModelDelta::create(plan.downlink, student)));
  if (plan.downlink.mode != "sum") return std::nullopt;
  if (!ring) return fail(Code::kRefused, "downlink.mode: sum needs update.profile: secure");
  auto step = std::make_unique<compression::SumStep>(*ring, plan.seed, plan.downlink.rate, student);
  PlanReady::PublishedSums sums{plan.initial, step->bytes(), std::uint32_t(plan.rounds)};
  downlink_ = std::move(step);
  return sums;
}

void Site::act(Send& send, Todo& todo, Time) { todo.send.push_back(std::move(send.message)); }

void Site::act(ReadPlan& read, Todo& todo, Time now) { run(weigh(read.plan), todo, now); }

void Site::act(UseTeacher& use, Todo&, Time) {
  auto teacher = build_guarded(plan_.teacher.spec, plan_.training.device);
  const auto parameters = floats_of(use.parameters);
  if (!teacher || parameters.size() != teacher->space().size())
    return spdlog::warn("{}: the teacher that arrived is not what the plan describes; training goes on without it", state_.name);
  teacher->load(parameters);
  auto resident = std::make_shared<models::FlatModel>(std::move(*teacher));
  if (!distill::Teacher::wrap(resident).takes(plan_.student.task))
    return spdlog::warn("{}: the teacher cannot take images of {} px; training goes on without it", state_.name, plan_.student.task.image_size);
  state_.teacher = std::move(resident);
}

void Site::act(Train& train, Todo& todo, Time) {
  todo.job = [this, train = std::move(train)](Workbench& bench) -> Event { return local_round(bench, state_, train); };
}

void Site::act(Patch& patch, Todo& todo, Time now) {
  auto model = patched(patch);
  if (!model) spdlog::warn("{}: patches of the model: {}", state_.name, model.error().message);
  run(model ? Patched{std::move(*model)} : Patched{nullptr, model.error().message}, todo, now);
}

/// Error: the coordinator's patches do not make the model that it promised.
Result<transport::Blob> Site::patched(const Patch& patch) const {
  auto model = std::make_shared<Bytes>(*patch.base);
  const std::span<float> values{reinterpret_cast<float*>(model->data()), model->size() / sizeof(float)};
  if (!downlink_ || values.size() != downlink_->size()) return fail(Code::kRefused, "patches that the plan does not speak of");
  for (std::size_t i = 0; i < patch.deltas.size(); ++i) {
    const auto round = patch.patches[i].round;
    if (auto applied = downlink_->apply(patch.deltas[i], round, values); !applied) return in(fmt::format("round {}", round), applied.error());
  }
  if (sha256(*model) != patch.model) return fail(Code::kRefused, "they lead to a model of another hash");
  return model;
}

void Site::act(Settle& settle, Todo&, Time) {
  state_.settle(settle.accepted);
  if (!settle.accepted) spdlog::warn("{}: the update of round {} is lost: {}", state_.name, settle.round, settle.why);
}

void Site::act(Judge& judge, Todo& todo, Time) {
  todo.job = [this, model = judge.model](Workbench& bench) -> Event {
    try {
      auto verdict = node::judge(bench, state_, *model);
      if (!verdict) return Judged{{}, verdict.error().message};
      verdict_ = std::move(*verdict);
      return Judged{verdict_->report, ""};
    } catch (const std::exception& e) {
      const std::string text = e.what();
      return Judged{{}, text.substr(0, text.find('\n'))};
    }
  };
}

void Site::act(Stop& stop, Todo& todo, Time) { todo.stop = std::move(stop); }

}  // namespace preceptor::node
