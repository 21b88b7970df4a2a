// SPDX-License-Identifier: Apache-2.0
//
// Simulated hosts as the targets play with them: small, so that every limit is near, with segments
// of somebody who is none of the hosts.
#pragma once

#include "stack/wire/ethernet.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/tcp.hpp"
#include "test/fuzz/input.hpp"
#include "test/sim/network.hpp"

#include <time.h>

#include <cstdint>
#include <cstring>
#include <span>

namespace chiru::fuzz {

inline constexpr std::uint16_t kVouched = kRxIpChecksumGood | kRxL4ChecksumGood;

inline sim::HostOptions small_host(std::uint8_t number) {
    sim::HostOptions options;
    options.number = number;
    options.seed = number;
    options.rx_slots = 512;
    options.max_rx_slots = 300;
    options.connections = 24;
    options.send_records = 256;
    options.tx_arena_bytes = 4u << 20;
    return options;
}

inline sim::LinkOptions short_wire(std::uint64_t seed) {
    sim::LinkOptions link;
    link.seed = seed;
    link.delay = Micros(100);
    return link;
}

/// Adds a header, or anything else that is plain bytes.
template <class Part>
void add(sim::Frame& frame, const Part& part) {
    const auto bytes = std::as_bytes(std::span(&part, 1));
    frame.insert(frame.end(), bytes.begin(), bytes.end());
}

inline sim::Frame ethernet_frame(const MacAddress& to, const MacAddress& from,
                                 wire::EtherType type) {
    sim::Frame frame;
    add(frame, wire::EthernetHeader{to, from, static_cast<std::uint16_t>(type)});
    return frame;
}

/// The checksum is left out: such frames are vouched for.
inline sim::Frame ipv4_frame(const MacAddress& to, const MacAddress& from,
                             wire::Protocol protocol, std::uint32_t source,
                             std::uint32_t destination, const sim::Frame& body) {
    sim::Frame frame = ethernet_frame(to, from, wire::EtherType::Ipv4);
    wire::Ipv4Header ip;
    ip.total_length = static_cast<std::uint16_t>(sizeof ip + body.size());
    ip.ttl = 64;
    ip.protocol = static_cast<std::uint8_t>(protocol);
    ip.source = source;
    ip.destination = destination;
    add(frame, ip);
    frame.insert(frame.end(), body.begin(), body.end());
    return frame;
}

/// A TCP header with room for so many bytes of options behind it.
inline wire::TcpHeader tcp_header(std::uint16_t from, std::uint16_t to, std::size_t option_bytes) {
    wire::TcpHeader tcp{};
    tcp.source_port = from;
    tcp.destination_port = to;
    tcp.data_offset = static_cast<std::uint8_t>((sizeof tcp + option_bytes) / 4 << 4);
    return tcp;
}

/// Runs what somebody makes a stack do, and holds it to its time. The bound is far above what any
/// honest turn of these small hosts takes, sanitizers and a virtual machine's lost ticks included,
/// and far below what a walk over a list of lists would take.
template <class Work>
void in_bounded_time(Work&& work) {
    const auto cpu_ns = [] {
        timespec t{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return t.tv_sec * 1'000'000'000 + t.tv_nsec;
    };
    constexpr long kBoundNs = 250'000'000;
    const long before = cpu_ns();
    work();
    must(cpu_ns() - before < kBoundNs, "a single frame or submission took 250 ms");
}

/// Lets everything end, and finds nothing left of it.
inline void must_end(sim::Network& net) {
    net.left_app.abort_all(net.now);
    net.right_app.abort_all(net.now);
    const auto live = [&net] {
        return net.left.tables().connections_live + net.right.tables().connections_live;
    };
    net.run(std::chrono::seconds(200));
    for (int i = 0; i < 10 && live() > 0; ++i) net.run(std::chrono::seconds(200));
    must_be_none(net.left.leaks());
    must_be_none(net.right.leaks());
}

}  // namespace chiru::fuzz
