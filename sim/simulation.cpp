#include "sim/simulation.h"

#include <deque>

#include "common/log.h"
#include "common/progress.h"
#include "common/worker_pool.h"
#include "node/site.h"
#include "sim/references.h"
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
  node::Site site;
  Wire up, down;
  std::optional<node::Stop> stop;
};

/// A finished long job: an event for one site, or (commit) for the coordinator.
struct Answer {
  std::string site;  ///< "": the coordinator
  node::Event event;
  std::optional<Error> error;
};

/// Keys of all sites, made for this run, and the roster that pins them.
struct Identities {
  std::map<std::string, std::shared_ptr<const privacy::Signer>> signers;
  std::shared_ptr<const privacy::Roster> roster;

  static Result<Identities> make(const data::Federation& federation) {
    Identities all;
    std::map<std::string, Bytes> keys;
    for (const auto& site : federation.sites) {
      auto signer = std::make_shared<privacy::KeySigner>(TRY(privacy::KeySigner::generate()));
      keys[site.name] = signer->credential();
      all.signers[site.name] = std::move(signer);
    }
    all.roster = std::make_shared<privacy::KeyRoster>(std::move(keys));
    return all;
  }
};

class Simulation {
 public:
  Simulation(const SimulationOptions& options, coordinator::Job& job, const data::Federation& federation, const std::filesystem::path& ledgers,
             const Identities& identities)
      : options_(options), job_(job), benches_(std::size_t(options.sim.threads)), pool_(options.sim.threads) {
    for (const auto& site : federation.sites)
      sites_.try_emplace(site.name, VirtualSite{node::Site(site.name, site.data, options.sim.limits, {ledgers / site.name, /*simulated=*/true},
                                                          {site.name, identities.signers.at(site.name), identities.roster, {}}), {}, {}, {}});
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
        if (auto answer = pool_.wait(100ms)) TRY(take(std::move(*answer)));
      } else {
        const auto deadline = job_.machine().next_deadline();
        if (!deadline) return fail(Code::kUnavailable, "nobody has anything left to do in: {}", job_.machine().status());
        now_ = std::max(now_, *deadline);
        tell_coordinator(coordinator::Tick{});
      }
    }
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
    if (site.stop) return;
    if (letter.up)
      tell_coordinator(coordinator::Said{letter.site, site.up.pass(letter.message, bytes_.up)});
    else
      tell_site(letter.site, node::Heard{site.down.pass(letter.message, bytes_.down)});
  }

  Result<void> take(Answer answer) {
    if (answer.error) return std::unexpected(std::move(*answer.error));
    if (answer.site.empty())
      tell_coordinator(coordinator::Evaluated{});
    else
      tell_site(answer.site, std::move(answer.event));
    return {};
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
      return {"", {}, done ? std::nullopt : std::optional(done.error())};
    });
  }

  void tell_site(const std::string& name, node::Event event) {
    auto& virtual_site = sites_.at(name);
    auto todo = virtual_site.site.step(std::move(event), now_);
    for (auto& message : todo.send) letters_.push_back({name, true, std::move(message)});
    if (todo.job) {
      pool_.submit(virtual_site.site.train_samples(), [this, name, job = std::move(*todo.job)](int worker) -> Answer {
        auto bench = this->bench(worker);
        if (!bench) return {name, {}, bench.error()};
        return {name, job(**bench), std::nullopt};
      });
    }
    if (!todo.stop) return;
    virtual_site.stop = std::move(todo.stop);
    if (virtual_site.stop->completed) return;
    spdlog::warn("{}: {}", name, virtual_site.stop->reason);
    tell_coordinator(coordinator::Left{name, virtual_site.stop->reason});
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
  Time now_{0};
  coordinator::WireBytes bytes_;
  std::optional<coordinator::Finished> finished_;
  WorkerPool<Answer> pool_;  // last: its threads end before what they use
};

}  // namespace

Result<Json> simulate(SimulationOptions options, const std::string& config, const std::filesystem::path& out) {
  const auto federation = TRY(data::load(options.data, options.seed));
  if (options.federation.sites == 0) options.federation.sites = int(federation.sites.size());  // all of them are here
  for (const auto& note : federation.report.notes) spdlog::info("data: {}", note);
  for (const auto& file : federation.report.skipped) spdlog::warn("data: skipped {}", file);
  if (federation.report.duplicates > 0)
    spdlog::warn("data: {} images stood in more than one split and were left out of training", federation.report.duplicates);
  const auto identities = TRY(Identities::make(federation));
  const auto job = TRY(coordinator::Job::prepare(options, config, federation, out, identities.roster));
  // Each run starts with unspent data; its noise is seeded, so nothing was protected before.
  const auto ledgers = out / "privacy";
  std::error_code error;
  std::filesystem::remove_all(ledgers, error);
  if (error) return fail(Code::kIo, "cannot clear {}: {}", ledgers.string(), error.message());
  Simulation simulation(options, *job, federation, ledgers, identities);
  const auto finished = TRY(simulation.run());
  auto extra = TRY(measure_references(options, *job, federation));
  extra.run["threads"] = options.sim.threads;
  if (options.privacy.differential_privacy.on()) extra.run["noise"] = "seeded: reproducible, so it protects nobody";
  auto summary = TRY(job->conclude(finished, simulation.bytes(), extra));
  if (!finished.completed) return fail(Code::kUnavailable, "the job was given up: {}", finished.reason);
  return summary;
}

}  // namespace preceptor::sim
