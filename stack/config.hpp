// SPDX-License-Identifier: Apache-2.0
//
// What whoever drives a stack may choose. Values only: the stack copies them.
#pragma once

#include "base/address.hpp"
#include "base/siphash.hpp"
#include "base/time.hpp"
#include "shm/descriptor.hpp"
#include "shm/directory.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace chiru {

/// A port as the stack sees it. Offloads are the negotiated ones: what is not set here is done
/// in software.
struct PortConfig {
    MacAddress mac;
    std::uint16_t mtu = 1500;    ///< IP packet bytes
    std::uint32_t offloads = 0;  ///< shm::PortOffload bits
    /// Payload bytes of the largest frame that is cut into segments behind the stack: by the port,
    /// or by its driver (segmenter.hpp). 0: by nobody.
    std::uint32_t tso_bytes = 0;
};

struct RouteConfig {
    IpPrefix to;    ///< length 0: default
    IpAddress via;  ///< a neighbour on the interface
};

/// Explicit congestion notification (RFC 3168).
enum class EcnPolicy : std::uint8_t {
    Off,
    Passive,  ///< agreed to when a peer asks
    On,       ///< asked for as well
};

/// Which connections send at a rate, not in bursts.
enum class PacingPolicy : std::uint8_t {
    Auto,  ///< those that must: BBR's, and where the program bounds the rate
    On,    ///< all whose round trip is long enough for timers to matter
};

/// TCP Fast Open (RFC 7413): on which sides, where programs ask for it.
enum class FastOpenPolicy : std::uint8_t { Off = 0, Client = 1, Server = 2, Both = 3 };
constexpr bool includes(FastOpenPolicy policy, FastOpenPolicy side) {
    return (static_cast<unsigned>(policy) & static_cast<unsigned>(side)) != 0;
}

struct InterfaceConfig {
    std::string name;
    std::uint16_t port = 0;
    std::uint16_t vlan = 0;  ///< 802.1Q id; 0: untagged
    std::vector<IpPrefix> addresses;
    std::vector<RouteConfig> routes;
    std::optional<shm::CongestionAlgorithm> congestion;  ///< unset: TcpConfig's
    std::optional<EcnPolicy> ecn;                        ///< the same
    std::optional<PacingPolicy> pacing;                  ///< the same
};

/// Bucket of the receive hash to shard. Every shard, the steering code and the port's
/// indirection table hold the same map.
inline constexpr std::size_t kFlowGroups = 128;
using FlowMap = std::array<std::uint8_t, kFlowGroups>;

/// Packetization-layer path MTU discovery (RFC 4821).
enum class MtuProbing : std::uint8_t {
    Off,        ///< ICMP only
    BlackHole,  ///< when full segments stay unanswered, and to raise what was lowered
    Always,     ///< each connection begins small, and finds out
};

struct TcpConfig {
    Micros min_rto = std::chrono::milliseconds(5);
    Micros max_rto = std::chrono::seconds(60);
    Micros initial_rto = std::chrono::seconds(1);
    Micros delayed_ack = std::chrono::milliseconds(20);
    Micros time_wait = std::chrono::seconds(60);  ///< 2 MSL
    Micros fin_wait2 = std::chrono::seconds(60);  ///< once the client let go of the connection
    Micros keep_idle = std::chrono::hours(2);
    Micros keep_interval = std::chrono::seconds(75);
    std::uint32_t keep_count = 9;
    std::uint32_t syn_retries = 6;
    std::uint32_t retries = 15;
    std::uint32_t receive_buffer_bytes = 16u << 20;  ///< how far a window grows by itself
    std::uint32_t send_buffer_bytes = 16u << 20;  ///< queued and not yet acknowledged
    shm::CongestionAlgorithm congestion = shm::CongestionAlgorithm::Cubic;
    EcnPolicy ecn = EcnPolicy::Passive;
    PacingPolicy pacing = PacingPolicy::Auto;
    FastOpenPolicy fast_open = FastOpenPolicy::Both;
    MtuProbing mtu_probing = MtuProbing::BlackHole;
    std::uint32_t resets_per_second = 10'000;  ///< to segments that belong to no connection
    bool syn_cookies = true;  ///< for SYNs beyond what a listener remembers
    std::uint16_t first_port = 32'768;  ///< ephemeral ports, both ends included
    std::uint16_t last_port = 60'999;
};

struct StackConfig {
    std::uint32_t shard = 0;
    std::uint32_t shard_count = 1;
    std::uint32_t connections = 131'072;  ///< of this shard
    std::uint32_t send_records = 65'536;  ///< slices queued or in flight, over all connections
    std::uint32_t listeners = 4'096;
    std::uint32_t datagram_records = 8'192;  ///< datagrams on their way out, over all sockets
    std::uint32_t neighbors = 8'192;
    std::uint32_t rx_slots = 0;           ///< slots of the RX arena
    /// How many of them this stack may hold on to, text and fragments together; 0: its share of
    /// all. The others are for what is received and answered at once: ARP, ICMP, ACKs.
    std::uint32_t rx_budget = 0;

    std::uint32_t slot_budget() const {
        return rx_budget != 0 ? rx_budget : rx_slots / std::max(shard_count, 1u);
    }
    /// Of the budget: fragments, and what ICMP quotes or echoes.
    std::uint32_t ip_slots() const { return std::min(slot_budget() / 8, 2048u); }
    /// Of the budget: text that was received and not consumed.
    std::uint32_t text_slots() const { return slot_budget() - ip_slots() - datagram_slots(); }
    /// Of the budget: datagrams that wait in their sockets or are lent to clients.
    std::uint32_t datagram_slots() const { return slot_budget() / 8; }
    /// Keys initial sequence numbers, ephemeral ports and hash tables: from getrandom() in
    /// production, from the test's seed in the simulator.
    SipKey secret;
    FlowMap flow_map{};
    std::vector<PortConfig> ports;
    std::vector<InterfaceConfig> interfaces;
    TcpConfig tcp;
};

}  // namespace chiru
