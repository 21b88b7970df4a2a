// SPDX-License-Identifier: Apache-2.0
//
// The state machine, segment by segment: two whole hosts and somebody between them. Input is a
// list of operations of two to eight bytes, told apart by the low bits of the first:
//
//   0  wait        one byte, in units of 1 ms squared
//   1  connect     from either side, IPv4 or IPv6, with or without an end of its own
//   2  wire        loses, holds back, doubles or damages the next frames, marks, cuts, or an MTU
//   3  forge       a segment of the other end: flags, sequence and acknowledgement numbers counted
//                  from what the connection expects, text, window, options (SACK, timestamps)
//   4  ICMP        an error that quotes the connection's newest segment, or one beside it
//   5  option      a socket option of a connection, or what a client may ask wrongly
//   6  program     aborts all, or dies
//
// Holds whatever comes: nothing stops the stack, every frame has one fate, quotas hold, lent memory
// is respected, and in the end nothing is held. As long as nothing was forged, also what the
// simulator asks of every run: bytes in order, once, windows kept.
#include "stack/wire/checksum.hpp"
#include "stack/wire/icmpv4.hpp"
#include "test/fuzz/hosts.hpp"

#include <algorithm>
#include <cstring>

using namespace chiru;
using namespace std::chrono_literals;
using fuzz::Input;

namespace {

constexpr std::uint16_t kPort = 80;
constexpr std::uint16_t kBulkPort = 81;
constexpr std::uint16_t kDeafPort = 82;
constexpr MacAddress kLeftMac{{2, 0, 0, 0, 0, 1}};
constexpr MacAddress kRightMac{{2, 0, 0, 0, 0, 2}};
constexpr int kOperations = 120;

class Machine {
public:
    Machine()
        : net_(fuzz::small_host(1), fuzz::small_host(2), fuzz::short_wire(1), fuzz::short_wire(2),
               65'536) {
        net_.right_app.listen(kPort, plan(3000, 5000), 8);
        net_.right_app.listen(kBulkPort, plan(3000, 60'000), 8);
        net_.run(3s);
    }

    void operate(Input& input) {
        const std::uint8_t op = input.byte();
        const unsigned more = op >> 3;
        switch (op & 7) {
            case 0: {
                const std::int64_t units = input.byte();
                wait(Micros(units * units * 1000));
                break;
            }
            case 1: connect(more); break;
            case 2: disturb(more, input.byte()); break;
            case 3: forge(input, more); break;
            case 4: icmp(input, more); break;
            case 5: option(input, more); break;
            case 6: program(more); break;
            default: net_.run(Micros(50 * (more + 1)));
        }
        if (!forged_) fuzz::must_be_none(net_.fault());
        fuzz::must_be_none(net_.left.fault());
        fuzz::must_be_none(net_.right.fault());
    }

    void finish() {
        net_.there().options() = fuzz::short_wire(1);
        net_.back().options() = fuzz::short_wire(2);
        net_.there().cut(false);
        net_.back().cut(false);
        net_.run(5s);
        fuzz::must_end(net_);
    }

private:
    static sim::SocketPlan plan(std::uint64_t send, std::uint64_t expect) {
        sim::SocketPlan plan;
        plan.send_bytes = send;
        plan.expect_bytes = expect;
        plan.largest_send = 2500;
        plan.may_fail = true;
        return plan;
    }

    /// Not for hours: programs that hold something look again every 5 ms.
    void wait(Micros time) {
        time = std::min(time, to_wait_);
        to_wait_ -= time;
        net_.run(time);
    }

    std::uint32_t live() {
        return net_.left.tables().connections_live + net_.right.tables().connections_live;
    }

    void connect(unsigned more) {
        if (dead_ || live() > 30) return;
        const bool bulk = (more & 16) != 0;
        sim::SocketPlan client = plan(bulk ? 60'000 : 5000, 3000);
        client.hasty = (more & 1) != 0;
        if ((more & 2) != 0) client.reset_at = 4000;
        if ((more & 4) != 0) client.stall_at = 1000, client.stall_for = 2s;
        const bool v6 = (more & 8) != 0;
        const std::uint16_t port = more == 31 ? kDeafPort : bulk ? kBulkPort : kPort;
        net_.left_app.connect({v6 ? net_.right.v6() : net_.right.v4(), port}, client, net_.now);
    }

    void disturb(unsigned how, std::uint8_t value) {
        sim::Link& link = (how & 1) != 0 ? net_.there() : net_.back();
        sim::LinkOptions& o = link.options();
        switch (how >> 1 & 7) {
            case 0: o.lose_ppm = value * 3000u; break;
            case 1: o.duplicate_ppm = value * 3000u; break;
            case 2: o.late_ppm = value * 3000u, o.late_by = Micros(value * 20); break;
            case 3: o.corrupt_ppm = value * 1000u; break;
            case 4: o.lose_nth = {link.sent_frames() + 1 + value % 16u}; break;
            case 5: o.mtu = value < 20 ? 0 : 500 + value * 4u; break;
            case 6: link.cut(value % 2 == 1); break;
            default: o.bits_per_second = value * 1'000'000u; break;
        }
    }

    /// The block of a live connection of the left host; the first free one if there is none.
    const shm::ConnectionInfo& victim(unsigned which) {
        const std::uint32_t high = net_.left.tables().connections_high;
        for (std::uint32_t i = 0; i < high; ++i) {
            const shm::ConnectionInfo& c = net_.left.block((i + which) % high);
            if (c.state != shm::TcpState::Free && c.remote_address.is_v4()) return c;
        }
        return net_.left.block(0);
    }

    void deliver(wire::Protocol protocol, std::uint32_t source, const sim::Frame& body) {
        const sim::Frame frame = fuzz::ipv4_frame(kLeftMac, kRightMac, protocol, source,
                                                  net_.left.v4().v4_bits(), body);
        fuzz::in_bounded_time([&] { net_.left.receive(frame, net_.now, fuzz::kVouched); });
        net_.run(1us);
    }

    /// SACK blocks and timestamps near the truth, padded to a multiple of four.
    static sim::Frame forged_options(Input& input, const shm::ConnectionInfo& c) {
        const std::uint8_t how = input.byte();
        sim::Frame options;
        if ((how & 4) != 0) {
            fuzz::add(options, be32(0x0101'080a));
            fuzz::add(options, be32(c.ts_recent + input.distance()));
            fuzz::add(options, be32(input.distance()));
        }
        if (const unsigned blocks = how & 3; blocks != 0) {
            fuzz::add(options, be32(0x0101'0502u + blocks * 8));
            for (unsigned i = 0; i < blocks; ++i) {
                const std::uint32_t first = c.snd_una + input.distance();
                fuzz::add(options, be32(first));
                fuzz::add(options, be32(first + input.distance()));
            }
        }
        return options;
    }

    void forge(Input& input, unsigned which) {
        const shm::ConnectionInfo& c = victim(which);
        const std::uint8_t flags = input.byte();
        const std::uint32_t seq = c.rcv_nxt + input.distance();
        const std::uint32_t ack = (flags & 0x40 ? c.snd_nxt : c.snd_una) + input.distance();
        const std::size_t text = input.byte() * 5u;
        const std::uint8_t window = input.byte();
        const sim::Frame options = (flags & wire::kUrg) != 0 ? forged_options(input, c)
                                                             : sim::Frame();
        wire::TcpHeader tcp = fuzz::tcp_header(c.remote_port, c.local_port, options.size());
        tcp.sequence = seq;
        tcp.acknowledgment = ack;
        tcp.flags = flags;
        tcp.window = static_cast<std::uint16_t>(window * 257u);
        sim::Frame body;
        fuzz::add(body, tcp);
        body.insert(body.end(), options.begin(), options.end());
        body.resize(body.size() + text);
        forged_ = true;
        deliver(wire::Protocol::Tcp, c.remote_address.v4_bits(), body);
    }

    void icmp(Input& input, unsigned which) {
        const shm::ConnectionInfo& c = victim(which);
        wire::Icmpv4Header icmp;
        icmp.type = input.byte() % 16;
        icmp.code = input.byte() % 16;
        icmp.word1 = static_cast<std::uint16_t>(input.byte() * 8u);
        wire::Ipv4Header ip;
        ip.total_length = std::uint16_t{1500};
        ip.ttl = 64;
        ip.protocol = static_cast<std::uint8_t>(wire::Protocol::Tcp);
        ip.source = c.local_address.v4_bits();
        ip.destination = c.remote_address.v4_bits();
        sim::Frame body;
        fuzz::add(body, icmp);
        fuzz::add(body, ip);
        fuzz::add(body, be16(c.local_port));
        fuzz::add(body, be16(c.remote_port));
        fuzz::add(body, be32(c.snd_una + input.distance()));
        const be16 sum = wire::checksum(body);
        std::memcpy(body.data() + offsetof(wire::Icmpv4Header, checksum), &sum, sizeof sum);
        forged_ = true;  // an unreachable may end an open, a small MTU is no fault either
        deliver(wire::Protocol::Icmp, 0x0a07'00feu, body);
    }

    void option(Input& input, unsigned which) {
        if (dead_) return;
        const std::uint32_t high = net_.left.tables().connections_high;
        if (high == 0) return;
        const shm::ConnectionInfo& c = net_.left.block(which % high);
        // A name the program was not told yet, so it may hear of what it cannot know.
        if (c.state == shm::TcpState::SynSent) forged_ = true;
        shm::Submission s;
        s.op = shm::SubmissionOp::SetOption;
        s.connection = {which % high, c.generation};
        s.option = {};
        s.option.option = static_cast<shm::ConnectionOption>(input.byte() % 24);
        s.option.value = input.byte();
        if (s.option.value > 200) s.option.value = 1ull << (s.option.value - 200);
        fuzz::in_bounded_time([&] {
            (void)net_.left.submit(s, net_.now);  // a violation is the daemon's to answer
        });
    }

    void program(unsigned how) {
        if (dead_) return;
        if (how % 4 != 0) return net_.left_app.abort_all(net_.now);
        net_.left.lose_client(net_.now);
        dead_ = true;
        forged_ = true;  // the program's own books are void
    }

    sim::Network net_;
    Micros to_wait_ = 200s;
    bool forged_ = false;
    bool dead_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Machine machine;
    for (int i = 0; i < kOperations && !input.empty(); ++i) machine.operate(input);
    machine.finish();
    return 0;
}
