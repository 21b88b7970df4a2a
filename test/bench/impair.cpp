// SPDX-License-Identifier: Apache-2.0
//
// A wire between two interfaces with the simulator's faults, in real time: netem is not in every
// kernel, and with this one the wire of a measurement and that of a simulated run are the same.
//
//   bench_impair --a IFACE --b IFACE [--delay-us N] [--loss-ppm N] [--late-ppm N] [--late-us N]
//                [--rate-mbit N] [--queue-kb N] [--seed N]
//
// Delay and losses are for each direction; frames are overtaken (late) on the way from a to b only.
// Says "ready" once frames pass; ends with SIGTERM, and then says what passed.
#include "base/time.hpp"
#include "test/sim/link.hpp"

#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <system_error>

using namespace chiru;

namespace {

constexpr std::size_t kMaxFrame = 2048;
constexpr int kSocketBytes = 16 << 20;
constexpr int kBurst = 64;

volatile std::sig_atomic_t stopping = 0;

int must(int result, const char* what) {
    if (result < 0) throw std::system_error(errno, std::generic_category(), what);
    return result;
}

/// A raw socket that sees what arrives on an interface, and nothing that was sent there.
int open_wire(const char* interface) {
    const int fd = must(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), "socket");
    const int on = 1;
    must(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on), "ignore outgoing");
    must(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on), "bypass");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBytes, sizeof kSocketBytes), "buffer");
    must(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBytes, sizeof kSocketBytes), "buffer");
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex(interface));
    must(address.sll_ifindex == 0 ? -1 : 0, interface);
    must(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
    return fd;
}

Instant clock_now() {
    return Instant(std::chrono::duration_cast<Micros>(
        std::chrono::steady_clock::now().time_since_epoch()));
}

/// From one interface to the other.
struct Direction {
    int from;
    int to;
    sim::Link link;
    std::uint64_t refused = 0;  ///< by the interface it was to leave by

    bool take_in(Instant now) {
        std::array<std::byte, kMaxFrame> bytes;
        int taken = 0;
        for (; taken < kBurst; ++taken) {
            const ssize_t length = recv(from, bytes.data(), bytes.size(), 0);
            if (length <= 0) break;
            link.send(sim::Frame(bytes.data(), bytes.data() + length), now);
        }
        return taken == kBurst;
    }
    void put_out(Instant now) {
        link.deliver(now, [this](const sim::Frame& frame) {
            if (send(to, frame.data(), frame.size(), 0) < 0) ++refused;
        });
    }
};

struct Options {
    const char* a = nullptr;
    const char* b = nullptr;
    sim::LinkOptions link;
    std::uint32_t late_ppm = 0;
};

Options read_options(int argc, char** argv) {
    Options options;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view name = argv[i];
        const auto number = std::strtoull(argv[i + 1], nullptr, 10);
        if (name == "--a") options.a = argv[i + 1];
        else if (name == "--b") options.b = argv[i + 1];
        else if (name == "--delay-us") options.link.delay = Micros(number);
        else if (name == "--loss-ppm") options.link.lose_ppm = static_cast<std::uint32_t>(number);
        else if (name == "--late-ppm") options.late_ppm = static_cast<std::uint32_t>(number);
        else if (name == "--late-us") options.link.late_by = Micros(number);
        else if (name == "--rate-mbit") options.link.bits_per_second = number * 1'000'000;
        else if (name == "--queue-kb") options.link.queue_bytes = number * 1024;
        else if (name == "--seed") options.link.seed = number;
        else throw std::invalid_argument(argv[i]);
    }
    if (options.a == nullptr || options.b == nullptr) throw std::invalid_argument("--a, --b");
    return options;
}

void carry(std::span<Direction> ways) {
    while (stopping == 0) {
        Instant now = clock_now();
        bool more = false;
        for (Direction& way : ways) more |= way.take_in(now);
        now = clock_now();
        for (Direction& way : ways) way.put_out(now);
        if (more) continue;
        const Instant next = std::min(ways[0].link.next_arrival(), ways[1].link.next_arrival());
        std::array<pollfd, 2> waits{{{ways[0].from, POLLIN, 0}, {ways[1].from, POLLIN, 0}}};
        timespec patience{0, 100'000'000};
        if (next != kNever) {
            const std::int64_t us = std::clamp<std::int64_t>((next - clock_now()).count(), 0,
                                                             100'000);
            patience.tv_nsec = us * 1000;
        }
        ppoll(waits.data(), waits.size(), &patience, nullptr);
    }
}

void run(const Options& options) {
    const int a = open_wire(options.a), b = open_wire(options.b);
    sim::LinkOptions there = options.link, back = options.link;
    there.late_ppm = options.late_ppm;
    back.seed += 1;
    std::array<Direction, 2> ways{Direction{a, b, sim::Link(there)},
                                  Direction{b, a, sim::Link(back)}};
    prctl(PR_SET_TIMERSLACK, 1);
    std::printf("ready\n");
    std::fflush(stdout);
    carry(ways);
    for (const Direction& way : ways)
        std::printf("%llu frames, %llu lost, %llu refused\n",
                    static_cast<unsigned long long>(way.link.sent_frames()),
                    static_cast<unsigned long long>(way.link.lost_frames()),
                    static_cast<unsigned long long>(way.refused));
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGTERM, [](int) { stopping = 1; });
    try {
        run(read_options(argc, argv));
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_impair: %s\n", error.what());
        return 1;
    }
}
