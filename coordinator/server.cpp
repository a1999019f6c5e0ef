#include "coordinator/server.h"

#include "common/log.h"
#include "common/progress.h"
#include "common/worker_pool.h"
#include "privacy/secure_aggregation/certificate_identity.h"

namespace preceptor::coordinator {
namespace {

using namespace std::chrono_literals;

/// Drives the state machine with what the link hears; commits run on a thread of their own, so that
/// heartbeats and uploads go on meanwhile.
class Server {
 public:
  Server(Job& job, transport::Link& link) : job_(job), link_(link), pool_(1) {}

  Result<Finished> run(int rounds, const std::atomic<bool>& interrupted) {
    Progress progress("federation");
    while (!finished_) {
      if (interrupted) return Finished{false, "interrupted", {}};
      progress.update(double(job_.machine().rounds_done()) / rounds, job_.machine().status());
      if (auto event = link_.poll(20ms)) hear(*event);
      while (auto answer = pool_.wait(0ms)) {
        if (*answer) return std::unexpected(**answer);
        step(Evaluated{});
      }
      if (const auto deadline = job_.machine().next_deadline(); deadline && now() >= *deadline) step(Tick{});
    }
    while (pool_.open() > 0) pool_.wait(100ms);
    return *finished_;
  }

  WireBytes bytes() const {
    const auto traffic = link_.traffic();
    return {traffic.received, traffic.sent};
  }

 private:
  Time now() const { return std::chrono::duration_cast<Time>(std::chrono::steady_clock::now() - start_); }

  void hear(transport::LinkEvent& event) {
    if (std::holds_alternative<transport::Connected>(event.what)) {
      spdlog::info("{} connected", event.peer);
      step(Came{event.peer});
    } else if (const auto* gone = std::get_if<transport::Disconnected>(&event.what)) {
      spdlog::info("{} disconnected: {}", event.peer, gone->reason);
      step(Left{event.peer, gone->reason});
    } else {
      step(Said{event.peer, std::get<transport::Message>(std::move(event.what))});
    }
  }

  void step(const Event& event) {
    for (auto& effect : job_.machine().step(event, now())) std::visit([&](auto& e) { act(e); }, effect);
  }
  void act(Send& send) {
    if (const auto* refused = std::get_if<transport::Refused>(&send.message))
      spdlog::warn("{}: refused in round {}: {}", send.peer, refused->round, refused->reason);
    link_.send(send.peer, send.message);
  }
  void act(Cut& cut) { link_.disconnect(cut.peer, cut.reason); }
  void act(Finished& finished) { finished_ = std::move(finished); }
  void act(Evaluate& evaluate) {
    pool_.submit(0, [this, evaluate = std::move(evaluate), bytes = bytes()](int) -> std::optional<Error> {
      const auto done = job_.commit(evaluate, bytes);
      return done ? std::nullopt : std::optional(done.error());
    });
  }

  Job& job_;
  transport::Link& link_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::optional<Finished> finished_;
  WorkerPool<std::optional<Error>> pool_;
};

}  // namespace

Result<nlohmann::ordered_json> serve(const ServerOptions& options, const std::string& config, const std::filesystem::path& out,
                                     const std::atomic<bool>& interrupted, const std::function<void(int port)>& bound) {
  const auto federation = TRY(data::load(options.data, options.seed));
  // A wrong certificate or a port in use is told before hours of training, not after.
  TRY(transport::StreamLink::listen(options.link)).reset();
  const auto& tls = options.link.tls;
  auto roster = std::make_shared<privacy::CertificateRoster>(TRY(privacy::CertificateRoster::open({tls.certificate, tls.key, tls.ca, tls.crl})));
  const auto job = TRY(Job::prepare(options, config, federation, out, std::move(roster)));
  auto link = TRY(transport::StreamLink::listen(options.link));
  spdlog::info("listening on {} (port {})", options.link.endpoint, link->port());
  if (bound) bound(link->port());
  Server server(*job, *link);
  const auto finished = TRY(server.run(options.federation.rounds, interrupted));
  auto summary = TRY(job->conclude(finished, server.bytes(), {}));
  link.reset();  // sends the last farewells
  if (!finished.completed) return fail(Code::kUnavailable, "the job was given up: {}", finished.reason);
  return summary;
}

}  // namespace preceptor::coordinator
