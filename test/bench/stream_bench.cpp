// SPDX-License-Identifier: Apache-2.0
//
// What a one-way stream costs a whole stack, driven by hand as in stack_bench.cpp: one end sends
// as fast as the other reads. Instructions of both stacks, without what drives them:
//
//   valgrind --tool=callgrind --toggle-collect='chiru::Stack::*' build/test/bench/bench_stream
#include "test/sim/host.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

using namespace chiru;

namespace {

constexpr shm::ListenerId kListener{1};
constexpr std::uint32_t kBlockBytes = 64 * 1024;
constexpr std::uint64_t kAheadBytes = 1u << 20;  ///< written, and not yet returned

/// Two hosts without a wire between them.
class Bench {
public:
    explicit Bench(std::uint32_t tso_bytes)
        : client_(options(1, tso_bytes)), server_(options(2, tso_bytes)) {
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
        for (int i = 0; i < 400 && name_.generation == 0; ++i) {
            turn(Micros(1000));
            for (const auto& c : client_.take_completions())
                if (c.op == shm::CompletionOp::Connected) name_ = c.connection;
        }
        return name_.generation != 0;
    }

    /// One turn of everybody; how many bytes were read.
    std::uint64_t round() {
        while (ahead_ + kBlockBytes <= kAheadBytes) {
            send();
            ahead_ += kBlockBytes;
        }
        turn(Micros(10));
        for (const auto& c : client_.take_completions()) ahead_ -= c.sent_bytes;
        std::uint64_t bytes = 0;
        for (const auto& c : server_.take_completions()) {
            if (c.op != shm::CompletionOp::Received) continue;
            for (std::size_t i = 0; i < c.count; ++i) {
                bytes += c.slices[i].length;
                must(server_.submit(sim::Host::release_of(c.slices[i]), now_));
            }
        }
        return bytes;
    }

    std::uint64_t count(shm::Counter counter) const {
        return client_.count(counter) + server_.count(counter);
    }

private:
    static sim::HostOptions options(std::uint8_t number, std::uint32_t tso_bytes) {
        sim::HostOptions o;
        o.number = number;
        o.seed = number;
        o.tso_bytes = tso_bytes;
        o.offloads = shm::kOffloadTxL4Checksum | shm::kOffloadTxIpChecksum;
        return o;
    }
    static void must(Violation violation) {
        if (violation != Violation::None) std::exit(1);
    }

    void send() {
        shm::Submission s;
        s.op = shm::SubmissionOp::Send;
        s.connection = name_;
        s.count = 1;
        s.slices = {};
        s.slices[0] = {next_block_ * kBlockBytes, kBlockBytes, shm::kTxArena, 0};
        next_block_ = (next_block_ + 1) % (client_.tx_arena_bytes() / kBlockBytes);
        must(client_.submit(s, now_));
    }
    void turn(Micros time) {
        constexpr std::uint16_t kGood = kRxIpChecksumGood | kRxL4ChecksumGood;
        now_ += time;
        server_.receive(client_.turn(now_), now_, kGood);
        client_.receive(server_.turn(now_), now_, kGood);
    }

    sim::Host client_;
    sim::Host server_;
    shm::ConnectionId name_;
    std::uint64_t next_block_ = 0;
    std::uint64_t ahead_ = 0;
    Instant now_{};
};

}  // namespace

int main(int argc, char** argv) {
    const std::uint64_t megabytes = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 256;
    const std::uint32_t tso =
        argc > 2 ? static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 10)) : 0;
    Bench bench(tso);
    if (!bench.connect()) {
        std::fprintf(stderr, "the two hosts did not connect\n");
        return 1;
    }
    const auto begin = std::chrono::steady_clock::now();
    std::uint64_t bytes = 0;
    while (bytes < megabytes << 20) bytes += bench.round();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::printf("%llu MB in %.0f ms, %llu segments, %llu repeated\n",
                static_cast<unsigned long long>(bytes >> 20), took.count() * 1e3,
                static_cast<unsigned long long>(bench.count(shm::Counter::TcpSegmentsOut)),
                static_cast<unsigned long long>(bench.count(shm::Counter::TcpRetransmits)));
}
