// SPDX-License-Identifier: Apache-2.0
//
// A peer that the fuzzer plays, against a whole stack with a program that listens on port 80.
// The peer speaks TCP well enough to get into connections: numbers are relative to what the stack
// sent. Input is a list of operations, each a byte whose low bits say which:
//
//   0  frame    two bytes of length, the frame
//   1  segment  flags, sequence delta (2), acknowledgement delta (2), window (2), words of options,
//               text length (2), the options; the high bits of the first byte choose the port
//   2  wait     one byte, in units of 4 ms squared
//
// Holds: nothing aborts, every frame ends in one counter, every slot comes back at the end.
#include "stack/wire/arp.hpp"
#include "test/fuzz/hosts.hpp"

#include <algorithm>
#include <array>
#include <span>

using namespace chiru;
using fuzz::Input;

namespace {

constexpr MacAddress kPeerMac{{2, 0, 0, 0, 0, 9}};
constexpr MacAddress kHostMac{{2, 0, 0, 0, 0, 1}};
constexpr IpAddress kPeer = IpAddress::v4(0x0a07'0009);
class Peer {
public:
    Peer() : host_(fuzz::small_host(1)), program_(host_, 1) {
        sim::SocketPlan plan;
        plan.send_bytes = 20'000;
        plan.fast_open = true;
        program_.listen(80, plan);
        run(2'000'000);
        sim::Frame arp = fuzz::ethernet_frame(kHostMac, kPeerMac, wire::EtherType::Arp);
        fuzz::add(arp, wire::arp_packet(wire::ArpOperation::Request, kPeerMac, kPeer, {},
                                        host_.v4()));
        frame(arp, 0);
    }

    void operate(Input& input) {
        const std::uint8_t op = input.byte();
        switch (op & 3) {
        case 0: {
            const auto bytes = input.bytes(std::min<std::size_t>(input.word(), 1514));
            frame(sim::Frame(bytes.begin(), bytes.end()), (op & 4) != 0 ? fuzz::kVouched : 0);
            break;
        }
        case 1: segment(input, (op >> 2) & 3u); break;
        default: {
            const std::int64_t units = input.byte();
            run(units * units * 4000);
        }
        }
    }

    void finish() {
        run(1'000'000);
        host_.stack().detach_session(sim::Host::kSession, now_);
        detached_ = true;
        run(150'000'000);
        host_.flush_device();
        fuzz::must(host_.slots_out() == 0, "slots are held though nothing waits");
        std::uint64_t in = 0;
        for (std::size_t i = 0; i < shm::kCounters.size(); ++i)
            if (shm::kCounters[i].name.starts_with("in."))
                in += host_.count(static_cast<shm::Counter>(i));
        fuzz::must(in == host_.count(shm::Counter::RxFrames),
                   "not every frame has its one counter");
    }

private:
    struct Side {
        std::uint32_t ours = 1000;  ///< the number after what we sent last
        std::uint32_t theirs = 0;
    };

    void segment(Input& input, std::size_t which) {
        Side& side = sides_[which];
        const std::uint8_t flags = input.byte();
        const std::uint32_t sequence = side.ours + input.delta();
        const std::uint32_t acknowledgment = side.theirs + input.delta();
        const std::uint16_t window = input.word();
        const std::size_t option_bytes = 4 * std::size_t{input.byte() & 7u};
        const std::size_t text_bytes = input.word() % 1400u;
        wire::TcpHeader tcp =
            fuzz::tcp_header(static_cast<std::uint16_t>(5000 + which), 80, option_bytes);
        tcp.flags = flags;
        tcp.sequence = sequence;
        tcp.acknowledgment = acknowledgment;
        tcp.window = window;
        sim::Frame l4;
        fuzz::add(l4, tcp);
        const auto options = input.bytes(option_bytes);
        l4.insert(l4.end(), options.begin(), options.end());
        l4.resize(sizeof tcp + option_bytes + text_bytes);
        const std::uint32_t marks = (tcp.flags & (wire::kSyn | wire::kFin)) != 0 ? 1u : 0u;
        side.ours = tcp.sequence + static_cast<std::uint32_t>(text_bytes) + marks;
        frame(fuzz::ipv4_frame(kHostMac, kPeerMac, wire::Protocol::Tcp, kPeer.v4_bits(),
                               host_.v4().v4_bits(), l4),
              fuzz::kVouched);
    }

    void frame(const sim::Frame& bytes, std::uint16_t flags) {
        fuzz::in_bounded_time([&] { host_.receive(bytes, now_, flags); });
        turn();
    }

    void turn() {
        if (!detached_) program_.turn(now_);
        for (const sim::Frame& sent : host_.turn(now_)) {
            if (sent.size() < 54 || sent[12] != std::byte{8} || sent[23] != std::byte{6}) continue;
            const auto ip = read_header<wire::Ipv4Header>(std::span(sent).subspan(14));
            const auto tcp = read_header<wire::TcpHeader>(std::span(sent).subspan(34));
            const std::size_t which = std::size_t{tcp->destination_port} - 5000;
            if (which >= sides_.size()) continue;
            const std::uint32_t marks = (tcp->flags & (wire::kSyn | wire::kFin)) != 0 ? 1u : 0u;
            sides_[which].theirs = tcp->sequence + marks + ip->total_length -
                                   static_cast<std::uint32_t>(20 + tcp->length_bytes());
        }
    }

    /// Lets so many microseconds pass, timer by timer, but only so many timers.
    void run(std::int64_t us) {
        const Instant end = now_ + Micros(us);
        for (int turns = 0; turns < 2000 && now_ < end; ++turns) {
            now_ = std::min(std::max(host_.next_deadline(), now_ + Micros(1)), end);
            turn();
        }
        now_ = end;
        turn();
    }

    sim::Host host_;
    sim::Application program_;
    std::array<Side, 4> sides_;
    Instant now_{};
    bool detached_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Peer peer;
    for (int i = 0; i < 200 && !input.empty(); ++i) peer.operate(input);
    peer.finish();
    return 0;
}
