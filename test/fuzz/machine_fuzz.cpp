// SPDX-License-Identifier: Apache-2.0
//
// The state machine, segment by segment: two whole hosts and somebody between them. Input is a
// list of operations of two to eight bytes, told apart by the low bits of the first:
//
//   0  wait        one byte, in units of 1 ms squared
//   1  connect     from either side, IPv4 or IPv6, with or without an end of its own
//   2  wire        loses, holds back, doubles or damages the next frames, marks, cuts, or an MTU
//   3  forge       a segment of the other end: flags, sequence and acknowledgement numbers counted
//                  from what the connection expects, window, text
//   4  ICMP        an error that quotes the connection's newest segment, or one beside it
//   5  option      a socket option of a connection, or what a client may ask wrongly
//   6  program     aborts all, or dies
//
// Holds whatever comes: nothing stops the stack, every frame has one fate, quotas hold, lent memory
// is respected, and in the end nothing is held. As long as nothing was forged, also what the
// simulator asks of every run: bytes in order, once, windows kept.
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/tcp.hpp"
#include "test/sim/network.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>

using namespace chiru;
using namespace std::chrono_literals;

namespace {

constexpr std::uint16_t kPort = 80;
constexpr int kOperations = 120;

class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}
    bool empty() const { return rest_.empty(); }
    std::uint8_t byte() {
        if (rest_.empty()) return 0;
        const std::uint8_t value = rest_[0];
        rest_ = rest_.subspan(1);
        return value;
    }
    /// Near zero, or anywhere: a small number is a distance, a large one a shift.
    std::uint32_t distance() {
        const std::uint8_t b = byte();
        if (b < 200) return static_cast<std::uint32_t>(static_cast<std::int32_t>(b) - 100);
        return 1u << (b - 200) % 32;
    }

private:
    std::span<const std::uint8_t> rest_;
};

sim::HostOptions options(std::uint8_t number) {
    sim::HostOptions options;
    options.number = number;
    options.seed = number;
    options.rx_slots = 512;
    options.connections = 24;
    options.send_records = 256;
    options.max_rx_slots = 300;
    options.tx_arena_bytes = 4u << 20;
    return options;
}

sim::LinkOptions wire(std::uint64_t seed) {
    sim::LinkOptions link;
    link.seed = seed;
    link.delay = 100us;
    return link;
}

class Machine {
public:
    Machine() : net_(options(1), options(2), wire(1), wire(2), 65'536) {
        net_.right_app.listen(kPort, plan(3000, 5000), 8);
        net_.run(3s);
    }

    void operate(Input& input) {
        const std::uint8_t op = input.byte();
        const unsigned more = op >> 3;
        switch (op & 7) {
            case 0: {
                const std::int64_t units = input.byte();
                net_.run(Micros(units * units * 1000));
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
        if (!forged_) require_no_fault(net_.fault());
        require_no_fault(net_.left.fault());
        require_no_fault(net_.right.fault());
    }

    void finish() {
        net_.there().options() = wire(1);
        net_.back().options() = wire(2);
        cut(false);
        net_.run(5s);
        net_.left_app.abort_all(net_.now);
        net_.right_app.abort_all(net_.now);
        net_.run(200s);
        for (int i = 0; i < 10 && live() > 0; ++i) net_.run(200s);
        require_no_fault(net_.left.leaks());
        require_no_fault(net_.right.leaks());
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

    static void require_no_fault(const std::string& fault) {
        if (fault.empty()) return;
        std::fprintf(stderr, "%s\n", fault.c_str());
        std::abort();
    }

    std::uint32_t live() {
        return net_.left.tables().connections_live + net_.right.tables().connections_live;
    }

    void cut(bool off) {
        net_.there().cut(off);
        net_.back().cut(off);
    }

    void connect(unsigned more) {
        if (dead_ || live() > 30) return;
        sim::SocketPlan client = plan(5000, 3000);
        client.hasty = (more & 1) != 0;
        if ((more & 2) != 0) client.reset_at = 4000;
        if ((more & 4) != 0) client.stall_at = 1000, client.stall_for = 2s;
        const bool v6 = (more & 8) != 0;
        const auto port = static_cast<std::uint16_t>((more & 16) != 0 ? kPort + 1 : kPort);
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

    void deliver(std::uint8_t protocol, std::uint32_t source,
                 const std::vector<std::byte>& body) {
        wire::EthernetHeader link{MacAddress{{2, 0, 0, 0, 0, 1}}, MacAddress{{2, 0, 0, 0, 0, 2}},
                                  static_cast<std::uint16_t>(wire::EtherType::Ipv4)};
        wire::Ipv4Header ip;
        ip.total_length = static_cast<std::uint16_t>(sizeof ip + body.size());
        ip.ttl = 64;
        ip.protocol = protocol;
        ip.source = source;
        ip.destination = net_.left.v4().v4_bits();
        sim::Frame frame(sizeof link + sizeof ip + body.size());
        std::memcpy(frame.data(), &link, sizeof link);
        std::memcpy(frame.data() + sizeof link, &ip, sizeof ip);
        std::memcpy(frame.data() + sizeof link + sizeof ip, body.data(), body.size());
        net_.left.receive(frame, net_.now, kRxIpChecksumGood | kRxL4ChecksumGood);
        net_.run(1us);
    }

    void forge(Input& input, unsigned which) {
        const shm::ConnectionInfo& c = victim(which);
        const std::uint8_t flags = input.byte();
        const std::uint32_t seq = c.rcv_nxt + input.distance();
        const std::uint32_t ack = (flags & 0x40 ? c.snd_nxt : c.snd_una) + input.distance();
        const std::size_t text = input.byte() * 5u;
        wire::TcpHeader tcp{};
        tcp.source_port = c.remote_port;
        tcp.destination_port = c.local_port;
        tcp.sequence = seq;
        tcp.acknowledgment = ack;
        tcp.flags = flags;
        tcp.window = static_cast<std::uint16_t>(input.byte() * 257u);
        const std::size_t option_bytes = flags & wire::kUrg ? 12 : 0;
        tcp.data_offset = static_cast<std::uint8_t>((sizeof tcp + option_bytes) / 4 << 4);
        std::vector<std::byte> body(sizeof tcp);
        std::memcpy(body.data(), &tcp, sizeof tcp);
        if (option_bytes != 0) {  // a SACK block
            const be32 head = 0x0101'050au, first = c.snd_una + input.distance(),
                       end = c.snd_nxt + input.distance();
            for (const be32& word : {head, first, end}) {
                const auto bytes = std::as_bytes(std::span(&word, 1));
                body.insert(body.end(), bytes.begin(), bytes.end());
            }
        }
        body.resize(body.size() + text);
        forged_ = true;
        deliver(6, c.remote_address.v4_bits(), body);
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
        ip.protocol = 6;
        ip.source = c.local_address.v4_bits();
        ip.destination = c.remote_address.v4_bits();
        const be16 ports[2] = {c.local_port, c.remote_port};
        const be32 seq = c.snd_una + input.distance();
        std::vector<std::byte> body;
        const auto add = [&body](const auto& part) {
            const auto bytes = std::as_bytes(std::span(&part, 1));
            body.insert(body.end(), bytes.begin(), bytes.end());
        };
        add(icmp);
        add(ip);
        add(ports);
        add(seq);
        const be16 sum = wire::checksum(body);
        std::memcpy(body.data() + offsetof(wire::Icmpv4Header, checksum), &sum, sizeof sum);
        forged_ = true;  // an unreachable may end an open, a small MTU is no fault either
        deliver(1, 0x0a07'00feu, body);
    }

    void option(Input& input, unsigned which) {
        if (dead_) return;
        const std::uint32_t high = net_.left.tables().connections_high;
        if (high == 0) return;
        shm::Submission s;
        s.op = shm::SubmissionOp::SetOption;
        s.connection = {which % high, net_.left.block(which % high).generation};
        s.option = {};
        s.option.option = static_cast<shm::ConnectionOption>(input.byte() % 24);
        s.option.value = input.byte();
        if (s.option.value > 200) s.option.value = 1ull << (s.option.value - 200);
        (void)net_.left.submit(s, net_.now);  // a violation is the daemon's to answer
    }

    void program(unsigned how) {
        if (dead_) return;
        if (how % 4 != 0) return net_.left_app.abort_all(net_.now);
        net_.left.lose_client(net_.now);
        dead_ = true;
        forged_ = true;  // the program's own books are void
    }

    sim::Network net_;
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
