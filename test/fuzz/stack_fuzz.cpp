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
#include "stack/wire/ethernet.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/tcp.hpp"
#include "test/sim/application.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <span>

using namespace chiru;

namespace {

constexpr MacAddress kPeerMac{{2, 0, 0, 0, 0, 9}};
constexpr MacAddress kHostMac{{2, 0, 0, 0, 0, 1}};
constexpr IpAddress kPeer = IpAddress::v4(0x0a07'0009);
constexpr int kVouched = kRxIpChecksumGood | kRxL4ChecksumGood;

void must(bool holds) {
    if (!holds) std::abort();
}

/// Reads numbers off the input; zeroes when it is used up.
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
    std::uint16_t word() {
        const auto high = static_cast<std::uint16_t>(byte() << 8);
        return static_cast<std::uint16_t>(high | byte());
    }
    std::uint32_t delta() {
        return static_cast<std::uint32_t>(std::int32_t{static_cast<std::int16_t>(word())});
    }
    std::span<const std::uint8_t> bytes(std::size_t count) {
        const auto taken = rest_.first(std::min(count, rest_.size()));
        rest_ = rest_.subspan(taken.size());
        return taken;
    }

private:
    std::span<const std::uint8_t> rest_;
};

sim::HostOptions options() {
    sim::HostOptions options;
    options.rx_slots = 512;
    options.tx_arena_bytes = 2u << 20;
    options.connections = 16;
    return options;
}

class Peer {
public:
    Peer() : host_(options()), program_(host_, 1) {
        sim::SocketPlan plan;
        plan.send_bytes = 20'000;
        plan.fast_open = true;
        program_.listen(80, plan);
        run(2'000'000);
        frame(as_frame(wire::EtherType::Arp,
                       wire::arp_packet(wire::ArpOperation::Request, kPeerMac, kPeer, {},
                                        host_.v4()), {}), 0);
    }

    void operate(Input& input) {
        const std::uint8_t op = input.byte();
        switch (op & 3) {
        case 0: {
            const auto bytes = std::as_bytes(input.bytes(std::min<std::size_t>(input.word(),
                                                                               1514)));
            frame(sim::Frame(bytes.begin(), bytes.end()), (op & 4) != 0 ? kVouched : 0);
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
        must(host_.slots_out() == 0);
        std::uint64_t in = 0;
        for (std::size_t i = 0; i < shm::kCounters.size(); ++i)
            if (shm::kCounters[i].name.starts_with("in."))
                in += host_.count(static_cast<shm::Counter>(i));
        must(in == host_.count(shm::Counter::RxFrames));
    }

private:
    struct Side {
        std::uint32_t ours = 1000;  ///< the number after what we sent last
        std::uint32_t theirs = 0;
    };

    template <class Header>
    static sim::Frame as_frame(wire::EtherType type, const Header& header,
                               const sim::Frame& rest) {
        const wire::EthernetHeader link{kHostMac, kPeerMac, static_cast<std::uint16_t>(type)};
        sim::Frame frame(sizeof link + sizeof header);
        std::memcpy(frame.data(), &link, sizeof link);
        std::memcpy(frame.data() + sizeof link, &header, sizeof header);
        frame.insert(frame.end(), rest.begin(), rest.end());
        return frame;
    }

    void segment(Input& input, std::size_t which) {
        Side& side = sides_[which];
        wire::TcpHeader tcp{};
        tcp.source_port = static_cast<std::uint16_t>(5000 + which);
        tcp.destination_port = std::uint16_t{80};
        tcp.flags = input.byte();
        tcp.sequence = side.ours + input.delta();
        tcp.acknowledgment = side.theirs + input.delta();
        tcp.window = input.word();
        const std::size_t option_bytes = 4 * std::size_t{input.byte() & 7u};
        const std::size_t text_bytes = input.word() % 1400u;
        tcp.data_offset = static_cast<std::uint8_t>((sizeof tcp + option_bytes) / 4 << 4);
        sim::Frame l4(sizeof tcp + option_bytes + text_bytes);
        std::memcpy(l4.data(), &tcp, sizeof tcp);
        const auto options = input.bytes(option_bytes);
        if (!options.empty()) std::memcpy(l4.data() + sizeof tcp, options.data(), options.size());

        wire::Ipv4Header ip;
        ip.total_length = static_cast<std::uint16_t>(sizeof ip + l4.size());
        ip.ttl = 64;
        ip.protocol = 6;
        ip.source = kPeer.v4_bits();
        ip.destination = host_.v4().v4_bits();
        const std::uint32_t marks = (tcp.flags & (wire::kSyn | wire::kFin)) != 0 ? 1u : 0u;
        side.ours = tcp.sequence + static_cast<std::uint32_t>(text_bytes) + marks;
        frame(as_frame(wire::EtherType::Ipv4, ip, l4), kVouched);
    }

    void frame(const sim::Frame& bytes, int flags) {
        host_.receive(bytes, now_, static_cast<std::uint16_t>(flags));
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
