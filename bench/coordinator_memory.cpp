// Peak memory of a coordinator that serves 4 sites and 64 sites, over TLS on the loopback: each coordinator is a
// process of its own, and so are its sites, which answer with random updates instead of training.
//   build/release/bench_coordinator_memory [model] [rounds]
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "coordinator/coordinator.h"
#include "models/flat_model.h"
#include "plan/plan.h"
#include "tests/support/temp_dir.h"
#include "transport/certificates.h"
#include "transport/stream_link.h"

namespace {

using namespace preceptor;
using namespace std::chrono_literals;

struct Setting {
  Plan plan;
  std::filesystem::path ca;
  int port = 0;
};

transport::TlsFiles files(const Setting& s, const std::string& name) {
  return {(s.ca / name / "cert.pem").string(), (s.ca / name / "key.pem").string(), (s.ca / name / "ca.pem").string(),
          (s.ca / name / "crl.pem").string()};
}

std::string site_name(int i) { return "site-" + std::to_string(i); }

/// Answers every round with a random update until the coordinator says goodbye or asks for a verdict.
void run_sites(const Setting& s, int sites, const models::FlatModel& model) {
  struct Fake {
    std::unique_ptr<transport::StreamLink> link;
    transport::BlobShelf shelf;
    bool done = false;
  };
  const auto codec = compression::UpdateCodec::create(s.plan.update, model.space()).value();
  std::vector<Fake> fakes;
  for (int i = 0; i < sites; ++i) {
    transport::ConnectOptions options;
    options.endpoint = "localhost:" + std::to_string(s.port);
    options.tls = files(s, site_name(i));
    fakes.push_back({transport::StreamLink::connect(options).value(), {}, false});
  }
  std::vector<float> delta(model.space().size());
  for (int left = sites; left > 0;) {
    for (int i = 0; i < sites; ++i) {
      auto& fake = fakes[std::size_t(i)];
      const auto event = fake.done ? std::nullopt : fake.link->poll(0ms);
      if (!event) continue;
      const auto send = [&](const transport::Message& m) { fake.link->send("coordinator", m); };
      if (std::holds_alternative<transport::Connected>(event->what)) send(transport::Hello{});
      const auto* message = std::get_if<transport::Message>(&event->what);
      if (!message) continue;
      if (std::holds_alternative<transport::Welcome>(*message)) send(transport::Ready{100});
      if (const auto* start = std::get_if<transport::RoundStart>(message)) {
        RandomStream random(start->round, "fake", {std::uint64_t(i)});
        for (auto& value : delta) value = float(random.uniform(-1e-3, 1e-3));
        compression::ErrorFeedback memory;
        auto bytes = std::make_shared<const Bytes>(codec.encode(delta, start->round, memory).value());
        const auto size = bytes->size();
        send(transport::UpdateOffer{start->round, fake.shelf.put(std::move(bytes)), size, start->architecture, 100, 1});
      } else if (const auto* fetch = std::get_if<transport::Fetch>(message)) {
        if (auto chunk = fake.shelf.serve(*fetch)) send(std::move(*chunk));
      } else if (std::holds_alternative<transport::Finish>(*message) || std::holds_alternative<transport::Goodbye>(*message)) {
        fake.done = true;
        --left;
      }
    }
  }
}

/// The coordinator's own loop, as in coordinator/server.cpp without evaluation; returns when rounds are over.
std::uint64_t run_coordinator(const Setting& s, transport::StreamLink& link, const models::FlatModel& model, int sites, int rounds) {
  const auto codec = compression::UpdateCodec::create(s.plan.update, model.space()).value();
  coordinator::PlainSum sum(codec, model.space().size());
  const auto values = model.store();
  const auto bytes = std::as_bytes(std::span(values));
  coordinator::RoundOptions options;
  options.rounds = rounds;
  options.sites = options.quorum = sites;
  auto plan = s.plan;
  coordinator::Coordinator machine({write_options(plan), 1, options, model.space(), &sum, nullptr, std::make_shared<const Bytes>(bytes.begin(), bytes.end()), nullptr});
  std::vector<coordinator::Event> events;
  bool over = false;
  while (!over) {
    if (auto event = link.poll(20ms)) {
      if (std::holds_alternative<transport::Connected>(event->what)) events.push_back(coordinator::Came{event->peer});
      else if (auto* gone = std::get_if<transport::Disconnected>(&event->what)) events.push_back(coordinator::Left{event->peer, gone->reason});
      else events.push_back(coordinator::Said{event->peer, std::move(std::get<transport::Message>(event->what))});
    }
    while (!events.empty()) {
      auto effects = machine.step(events.front(), Time(0));
      events.erase(events.begin());
      for (auto& effect : effects) {
        if (auto* send = std::get_if<coordinator::Send>(&effect)) {
          over = over || std::holds_alternative<transport::Finish>(send->message);
          link.send(send->peer, send->message);
        } else if (std::holds_alternative<coordinator::Evaluate>(effect)) {
          events.push_back(coordinator::Evaluated{});
        }
      }
    }
  }
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return std::uint64_t(usage.ru_maxrss) * 1024;
}

/// Runs `sites` fake sites against a coordinator; its peak memory.
std::uint64_t measure(Setting s, int sites, int rounds) {
  int report[2];
  if (::pipe(report) != 0) return 0;
  const auto coordinator = ::fork();
  if (coordinator == 0) {
    transport::ListenOptions options;
    options.endpoint = "127.0.0.1:0";
    options.tls = files(s, "coordinator");
    auto link = transport::StreamLink::listen(options).value();
    auto model = models::FlatModel::create(s.plan.student).value();
    model.initialise(RandomStream(1, "init"));
    std::uint64_t line[2] = {link->port(), 0};
    if (::write(report[1], line, 8) != 8) ::_exit(1);
    line[1] = run_coordinator(s, *link, model, sites, rounds);
    link.reset();
    ::_exit(::write(report[1], &line[1], 8) == 8 ? 0 : 1);
  }
  std::uint64_t port = 0, peak = 0;
  if (::read(report[0], &port, 8) != 8) return 0;
  const auto swarm = ::fork();
  if (swarm == 0) {
    s.port = int(port);
    const auto model = models::FlatModel::create(s.plan.student).value();
    run_sites(s, sites, model);
    ::_exit(0);
  }
  if (::read(report[0], &peak, 8) != 8) peak = 0;
  ::waitpid(coordinator, nullptr, 0);
  ::kill(swarm, SIGTERM);
  ::waitpid(swarm, nullptr, 0);
  return peak;
}

}  // namespace

int main(int argc, char** argv) {
  test::TempDir dir;
  Setting setting;
  setting.ca = dir.path() / "ca";
  setting.plan.student = {{argc > 1 ? argv[1] : "resnet18", 1, "small"}, {2, 1, 28}};
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 2;
  const auto made = transport::init_authority(setting.ca, "bench");
  if (!made) return std::fprintf(stderr, "%s\n", made.error().message.c_str()), 1;
  transport::CertificateRequest request;
  request.name = "coordinator";
  request.role = transport::CertificateRole::kCoordinator;
  request.hosts = {"localhost"};
  transport::issue_certificate(setting.ca, request).value();
  for (int i = 0; i < 64; ++i) {
    transport::CertificateRequest node;
    node.name = site_name(i);
    transport::issue_certificate(setting.ca, node).value();
  }
  const double mib = 1 << 20;
  const double few = double(measure(setting, 4, rounds)) / mib, many = double(measure(setting, 64, rounds)) / mib;
  std::printf("coordinator peak memory, %s, %d rounds: 4 sites %.1f MiB, 64 sites %.1f MiB, ratio %.3f\n",
              setting.plan.student.model.name.c_str(), rounds, few, many, many / few);
}
