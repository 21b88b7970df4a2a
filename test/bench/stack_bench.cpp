// SPDX-License-Identifier: Apache-2.0
//
// What a 64-byte echo costs a whole stack, driven by hand: no device, no ring, no other thread.
// Time per echo is both ends' together. For instructions of one call:
//
//   valgrind --tool=callgrind --toggle-collect='*Stack::receive(*' build/test/bench/bench_stack
#include "test/sim/host.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

using namespace chiru;

namespace {

constexpr std::uint32_t kTextBytes = 64;
constexpr shm::ListenerId kListener{1};

/// Two hosts without a wire between them.
class Bench {
public:
    Bench() : client_(options(1)), server_(options(2)) {
        server_.stack().listen(kListener, {IpAddress(), 7}, 0, {.backlog = 16});
        server_.stack().share_listener(kListener, sim::Host::kSession);
        shm::Submission credit;
        credit.op = shm::SubmissionOp::AcceptCredit;
        credit.credit = {kListener, 16};
        must(server_.submit(credit, now_));
    }

    bool connect() {
        for (int i = 0; i < 400; ++i) turn(Micros(10'000));  // duplicate address detection
        shm::Submission connect;
        connect.op = shm::SubmissionOp::Connect;
        connect.connect = {};
        connect.connect.remote = {server_.v4(), 7};
        must(client_.submit(connect, now_));
        for (int i = 0; i < 400 && !(open(client_name_) && open(server_name_)); ++i) {
            turn(Micros(1000));
            for (const auto& c : client_.take_completions())
                if (c.op == shm::CompletionOp::Connected) client_name_ = c.connection;
            for (const auto& c : server_.take_completions())
                if (c.op == shm::CompletionOp::Accepted) server_name_ = c.connection;
        }
        return open(client_name_) && open(server_name_);
    }

    void echo() {
        send(client_, client_name_);
        turn(Micros(10));
        answer(server_);
        send(server_, server_name_);
        turn(Micros(10));
        answer(client_);
    }

private:
    static sim::HostOptions options(std::uint8_t number) {
        sim::HostOptions o;
        o.number = number;
        o.seed = number;
        o.offloads = shm::kOffloadTxL4Checksum | shm::kOffloadTxIpChecksum;
        return o;
    }
    static bool open(const shm::ConnectionId& name) { return name.generation != 0; }
    static void must(Violation violation) {
        if (violation != Violation::None) std::exit(1);
    }

    void send(sim::Host& host, shm::ConnectionId name) {
        shm::Submission s;
        s.op = shm::SubmissionOp::Send;
        s.connection = name;
        s.count = 1;
        s.slices = {};
        s.slices[0] = {0, kTextBytes, shm::kTxArena, 0};
        must(host.submit(s, now_));
    }
    void answer(sim::Host& host) {
        for (const auto& c : host.take_completions(4))
            if (c.op == shm::CompletionOp::Received)
                must(host.submit(sim::Host::release_of(c.slices[0]), now_));
    }
    void turn(Micros time) {
        constexpr std::uint16_t kGood = kRxIpChecksumGood | kRxL4ChecksumGood;
        now_ += time;
        for (const auto& f : client_.turn(now_)) server_.receive(f, now_, kGood);
        for (const auto& f : server_.turn(now_)) client_.receive(f, now_, kGood);
    }

    sim::Host client_;
    sim::Host server_;
    shm::ConnectionId client_name_;
    shm::ConnectionId server_name_;
    Instant now_{};
};

}  // namespace

int main(int argc, char** argv) {
    const long echoes = argc > 1 ? std::atol(argv[1]) : 200'000;
    Bench bench;
    if (!bench.connect()) {
        std::fprintf(stderr, "the two hosts did not connect\n");
        return 1;
    }
    const auto begin = std::chrono::steady_clock::now();
    for (long i = 0; i < echoes; ++i) bench.echo();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::printf("%ld echoes of %u bytes: %.0f ns each, both ends and their driver\n", echoes,
                kTextBytes, took.count() * 1e9 / static_cast<double>(echoes));
}
