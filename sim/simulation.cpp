#include "sim/simulation.h"

#include <deque>

#include "common/log.h"
#include "common/progress.h"
#include "common/worker_pool.h"
#include "node/verdict.h"
#include "transport/frame.h"

namespace preceptor::sim {
namespace {

using Json = nlohmann::ordered_json;
using namespace std::chrono_literals;

/// One direction of a connection: numbers the frames, counts their bytes, and gives what the other side decodes.
class Wire {
 public:
  transport::Message pass(const transport::Message& message, std::uint64_t& counter) {
    const auto frame = transport::encode_frame(message, sequence_++);
    counter += frame.size();
    std::span<const std::byte> bytes(frame);
    auto decoded = decoder_.next(bytes);
    if (!decoded || !*decoded) throw std::logic_error("a frame of our own does not decode");
    return transport::message_of(**decoded).value();
  }

 private:
  std::uint64_t sequence_ = 0;
  transport::FrameDecoder decoder_;
};

struct VirtualSite {
  node::Session session;
  node::SiteState state;
  Wire up, down;
  bool stopped = false;
  std::string ended_because;
};

/// A finished long job: an event for one site's session, or for the coordinator.
struct Answer {
  std::string site;  ///< "": the coordinator
  std::variant<node::Event, coordinator::Event> event;
  std::optional<Error> error;
};

class Simulation {
 public:
  Simulation(const SimulationOptions& options, coordinator::Job& job, const data::Federation& federation)
      : options_(options), job_(job), benches_(std::size_t(options.sim.threads)), pool_(options.sim.threads) {
    for (const auto& site : federation.sites) {
      auto& mine = sites_.emplace(site.name, VirtualSite{node::Session(site.data.train.size()), {}, {}, {}, false, {}}).first->second;
      mine.state.name = site.name;
      mine.state.data = &site.data;
    }
  }

  Result<coordinator::Finished> run() {
    for (auto& [name, site] : sites_) {
      tell_coordinator(coordinator::Came{name});
      tell_site(name, node::Connected{});
    }
    Progress progress("federation");
    while (!finished_) {
      progress.update(double(job_.machine().rounds_done()) / options_.federation.rounds, job_.machine().status());
      if (!letters_.empty()) {
        deliver();
      } else if (pool_.open() > 0) {
        if (auto answer = pool_.wait(100ms)) {
          if (answer->error) return std::unexpected(*answer->error);
          if (answer->site.empty())
            tell_coordinator(std::get<coordinator::Event>(std::move(answer->event)));
          else
            tell_site(answer->site, std::get<node::Event>(std::move(answer->event)));
        }
      } else {
        const auto deadline = job_.machine().next_deadline();
        if (!deadline) return fail(Code::kUnavailable, "nobody has anything left to do in: {}", job_.machine().status());
        now_ = std::max(now_, *deadline);
        tell_coordinator(coordinator::Tick{});
      }
    }
    for (const auto& [name, site] : sites_)
      if (!site.ended_because.empty()) spdlog::warn("{}: {}", name, site.ended_because);
    return *finished_;
  }

  const coordinator::WireBytes& bytes() const { return bytes_; }

 private:
  struct Letter {
    std::string site;
    bool up;
    transport::Message message;
  };

  void deliver() {
    auto letter = std::move(letters_.front());
    letters_.pop_front();
    auto& site = sites_.at(letter.site);
    if (site.stopped) return;
    if (letter.up)
      tell_coordinator(coordinator::Said{letter.site, site.up.pass(letter.message, bytes_.up)});
    else
      tell_site(letter.site, node::Heard{site.down.pass(letter.message, bytes_.down)});
  }

  void tell_coordinator(const coordinator::Event& event) {
    for (auto& effect : job_.machine().step(event, now_)) std::visit([&](auto& e) { act(e); }, effect);
  }
  void act(coordinator::Send& send) { letters_.push_back({send.peer, false, std::move(send.message)}); }
  void act(coordinator::Cut& cut) { throw std::logic_error("the coordinator cuts a well-behaved site: " + cut.reason); }
  void act(coordinator::Finished& finished) { finished_ = std::move(finished); }
  void act(coordinator::Evaluate& evaluate) {
    pool_.submit(~std::uint64_t{0}, [this, evaluate = std::move(evaluate), bytes = bytes_](int) -> Answer {
      const auto done = job_.commit(evaluate, bytes);
      return {"", coordinator::Event(coordinator::Evaluated{}), done ? std::nullopt : std::optional(done.error())};
    });
  }

  void tell_site(const std::string& name, node::Event event) {
    auto& site = sites_.at(name);
    for (auto& effect : site.session.step(std::move(event), now_)) std::visit([&](auto& e) { act(name, site, e); }, effect);
  }
  void act(const std::string& name, VirtualSite&, node::Send& send) { letters_.push_back({name, true, std::move(send.message)}); }
  void act(const std::string& name, VirtualSite& site, node::ReadPlan& read) {
    const auto plan = node::read_plan(read.plan, *site.state.data);
    if (!plan) return tell_site(name, node::PlanReady{false, plan.error().message, "", 0});
    plan_ = *plan;
    tell_site(name, node::PlanReady{true, "", plan->teacher.sha256, plan->teacher.bytes});
  }
  void act(const std::string& name, VirtualSite& site, node::UseTeacher& use) {
    auto teacher = models::FlatModel::create(plan_.teacher.spec, plan_.training.device);
    if (!teacher) return;  // the site goes on without; the plan's spec is checked where it is made
    teacher->load(node::floats_of(use.parameters));
    site.state.teacher = std::make_shared<models::FlatModel>(std::move(*teacher));
    spdlog::debug("{}: has the teacher", name);
  }
  void act(const std::string& name, VirtualSite& site, node::Train& task) {
    pool_.submit(site.state.data->train.size(), [this, name, &site, task = std::move(task)](int worker) -> Answer {
      auto bench = this->bench(worker);
      if (!bench) return {name, node::Event(node::Trained{}), bench.error()};
      return {name, node::Event(node::local_round(**bench, site.state, task)), std::nullopt};
    });
  }
  void act(const std::string& name, VirtualSite& site, node::Settle& settle) {
    site.state.settle(settle.accepted);
    if (!settle.accepted) spdlog::warn("{}: update of round {} is lost: {}", name, settle.round, settle.why);
  }
  void act(const std::string& name, VirtualSite& site, node::Judge& judge) {
    pool_.submit(site.state.data->train.size(), [this, name, &site, judge](int worker) -> Answer {
      auto bench = this->bench(worker);
      if (!bench) return {name, node::Event(node::Judged{}), bench.error()};
      auto verdict = node::judge(**bench, site.state, *judge.model);
      if (!verdict) return {name, node::Event(node::Judged{{}, verdict.error().message}), std::nullopt};
      return {name, node::Event(node::Judged{std::move(verdict->report), ""}), std::nullopt};
    });
  }
  void act(const std::string&, VirtualSite& site, node::Stop& stop) {
    site.stopped = true;
    if (!stop.completed) site.ended_because = stop.reason;
  }

  /// A worker's own resident student, made on its first task.
  Result<node::Workbench*> bench(int worker) {
    auto& mine = benches_[std::size_t(worker)];
    if (!mine) mine = TRY(node::Workbench::create(job_.plan()));
    return mine.get();
  }

  const SimulationOptions& options_;
  coordinator::Job& job_;
  std::map<std::string, VirtualSite> sites_;
  std::deque<Letter> letters_;
  std::vector<std::unique_ptr<node::Workbench>> benches_;
  Plan plan_;
  Time now_{0};
  coordinator::WireBytes bytes_;
  std::optional<coordinator::Finished> finished_;
  WorkerPool<Answer> pool_;  // last: its threads end before what they use
};

/// The student trained on everybody's images in one place, for as many epochs as the federation had.
Result<Json> central_baseline(const SimulationOptions& options, const Plan& plan, const data::Federation& federation) {
  auto images = federation.consortium.train;
  for (const auto& site : federation.sites) images.append(site.data.train);
  auto model = TRY(models::FlatModel::create(plan.student, options.training.device));
  model.initialise(RandomStream(options.seed, "student/init"));
  auto training = options.training;
  training.epochs = std::max(1, options.federation.rounds * options.training.epochs);
  const auto objective = training::make_cross_entropy(training, images);
  Progress progress("central baseline");
  TRY(training::train(model, images, training, *objective, RandomStream(options.seed, "central").bits64(), {}, [&](int epoch, double loss) {
    progress.update(double(epoch + 1) / training.epochs, fmt::format("epoch {}/{}, loss {:.3f}", epoch + 1, training.epochs, loss));
    return true;
  }));
  return coordinator::to_json(coordinator::evaluate(model, federation.consortium.test, options.seed));
}

}  // namespace

Result<Json> simulate(SimulationOptions options, const std::string& config, const std::filesystem::path& out) {
  const auto federation = TRY(data::load(options.data, options.seed));
  if (options.federation.sites == 0) options.federation.sites = int(federation.sites.size());  // all of them are here
  for (const auto& note : federation.report.notes) spdlog::info("data: {}", note);
  for (const auto& file : federation.report.skipped) spdlog::warn("data: skipped {}", file);
  if (federation.report.duplicates > 0)
    spdlog::warn("data: {} images stood in more than one split and were left out of training", federation.report.duplicates);
  const auto job = TRY(coordinator::Job::prepare(options, config, federation, out));
  Simulation simulation(options, *job, federation);
  const auto finished = TRY(simulation.run());
  Json extra{{"threads", options.sim.threads}};
  if (options.sim.central) extra["central"] = TRY(central_baseline(options, job->plan(), federation));
  auto summary = TRY(job->conclude(finished, simulation.bytes(), extra));
  if (!finished.completed) return fail(Code::kUnavailable, "the job was given up: {}", finished.reason);
  return summary;
}

}  // namespace preceptor::sim
