// SPDX-License-Identifier: Apache-2.0
//
// IP for one stack: takes frames apart down to the transport, answers what is the network's own to
// answer, and puts headers in front of what the transports send. One class, because its parts
// share their tables; one file a subject:
//
//   receive.cpp    frame -> interface -> IPv4 or IPv6 -> transport
//   whole.cpp      what becomes of a datagram that was put together from fragments
//   arp.cpp  discovery.cpp  routers.cpp   who has which address; routers and their prefixes
//   icmp.cpp       echo, errors in both directions
//   path_mtu.cpp   the largest packets that reach a host
//   udp.cpp        datagrams checked, and their sockets' errors
//   groups.cpp     multicast groups, and what routers are told of them
//   output.cpp     class Lower: routes, headers, fragments
//   network.cpp    timers, and what is sent
//
// Shards: every one receives ARP and neighbour discovery, resolves for itself and learns from all;
// shard 0 alone answers, announces and detects duplicates.
#pragma once

#include "shm/counters.hpp"
#include "shm/tables.hpp"
#include "stack/config.hpp"
#include "stack/ip/control_queue.hpp"
#include "stack/ip/groups.hpp"
#include "stack/ip/interface.hpp"
#include "stack/ip/neighbor.hpp"
#include "stack/ip/path_mtu.hpp"
#include "stack/ip/reassembly.hpp"
#include "stack/ip/route.hpp"
#include "stack/ip/slots.hpp"
#include "stack/ip/token_bucket.hpp"
#include "stack/lower.hpp"
#include "stack/tcp/engine.hpp"
#include "stack/udp/engine.hpp"
#include "stack/wire/arp.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/igmp.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/udp.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::ip {

/// An IP packet that is for us, whole.
struct Packet {
    const RxFrame* frame = nullptr;  ///< nullptr: reassembled, and `chain` holds it
    std::uint16_t interface = 0;
    std::uint8_t protocol = 0;
    std::uint8_t tos = 0;
    std::uint8_t hop_limit = 0;
    bool to_group = false;  ///< multicast or broadcast, by either of its headers
    IpAddress source;
    IpAddress destination;
    std::span<const std::byte> packet;  ///< from the IP header on, of the first fragment
    std::span<const std::byte> l4;      ///< all of it, or the first fragment's part
    std::size_t l4_bytes = 0;           ///< all of it
    std::size_t protocol_at = 0;        ///< where `protocol` was read (IPv6)
    std::uint32_t chain = kNoPiece;     ///< of all the pieces, if reassembled
};

class Network final : public DatagramLower, private NeighborEvents {
public:
    static std::size_t tables_bytes(const StackConfig& config);

    Network(const StackConfig& config, std::span<std::byte> tables, std::byte* region,
            shm::ShardTables& published, ArenaView rx_arena, BufferPool& pool,
            shm::CounterBlock& counters, Instant now);

    /// Call once, before anything else.
    void attach(tcp::Engine& engine) { tcp_ = &engine; }
    void attach(udp::Engine& engine) { udp_ = &engine; }

    void receive(std::span<const RxFrame> frames, Instant now);
    void advance(Instant now);
    std::size_t transmit(std::span<TxFrame> frames, Instant now);
    Instant next_deadline() const;
    void link_up(PortIndex port, Instant now);

    shm::InterfaceInfo interface_info(std::uint16_t interface) const;
    std::uint32_t interfaces_version() const { return interfaces_.version(); }

    Result<Route, int> route(const IpAddress& remote, const IpAddress& local,
                             std::uint16_t link = kAnyInterface) override;
    bool is_local(const IpAddress& address) const override;
    BeginResult begin(TxFrame& frame, Path& path, const IpAddress& local, const IpAddress& remote,
                      std::uint8_t protocol, std::size_t l4_bytes, IpOptions options,
                      Instant now) override;
    void confirm(const Path& path, Instant now) override;
    std::uint16_t link_mtu(const Path& path) const override {
        return interfaces_[path.interface].info.mtu;
    }
    void found_path_mtu(const IpAddress& remote, std::uint16_t mtu, Larger larger,
                        Instant now) override;

    /// What this shard learnt of paths' MTUs since the last call; for the others.
    std::size_t take_path_mtus(std::span<PathMtu> news);
    /// What another shard learnt.
    void learn_path_mtu(const PathMtu& path, Instant now);

    Result<DatagramRoute, int> datagram_route(const IpAddress& remote, const IpAddress& local,
                                              std::uint16_t interface) override;
    std::uint32_t route_version() const override {
        return interfaces_.version() + path_mtus_seen_;
    }
    BeginResult begin_datagram(TxFrame& frame, Path& path, const IpAddress& local,
                               const IpAddress& remote, std::uint8_t protocol,
                               std::size_t payload_bytes, IpOptions options, const Cut& cut,
                               Instant now) override;
    std::uint32_t next_packet_id() override { return next_id_++; }
    bool is_member(const IpAddress& group) const override;

    /// Counts one membership more or less. The interface's number (from 1), or ENODEV: there is no
    /// such interface; ENOBUFS: too many groups.
    Result<std::uint16_t, int> join(const IpAddress& group, std::uint16_t interface, Instant now);
    void leave(const IpAddress& group, std::uint16_t interface, Instant now);

private:
    using Counter = shm::Counter;
    using Fate = tcp::Fate;

    /// Where in the burst the segments came from that wait for TCP.
    struct Burst {
        static constexpr std::size_t kFrames = 32;
        std::array<tcp::Incoming, kFrames> segments;
        std::size_t count = 0;
    };
    /// The segment before, of the same burst: its flow, if the next one belongs to it as well.
    struct Leader {
        const RxFrame* frame = nullptr;  ///< nullptr: there is none
        std::uint16_t l3 = 0;            ///< where its IP header begins
        bool v4 = false;
    };
    /// What a job made: its last frame, a frame that others follow, none.
    enum class Sent : std::uint8_t { Done, More, Nothing };

    // receive.cpp
    void receive_burst(std::span<const RxFrame> frames, Instant now);
    Fate receive_frame(const RxFrame& frame, Instant now);
    bool follow(const RxFrame& frame);
    Fate receive_v4(const RxFrame& frame, const Interface& interface, bool link_group,
                    std::span<const std::byte> bytes, Instant now);
    Fate receive_v6(const RxFrame& frame, const Interface& interface, bool link_group,
                    std::span<const std::byte> bytes, Instant now);
    bool plausible_source_v4(const Interface& interface, const IpAddress& source,
                             bool local) const;
    bool plausible_source_v6(const IpAddress& source, bool local) const;
    Fate refuse_chain(const Packet& packet, const wire::Ipv6Chain& chain, Instant now);
    Fate dispatch(Packet& packet, Instant now);
    Fate hand_to_tcp(const Packet& packet);
    std::uint16_t transport_checksum(const Packet& packet, bool with_pseudo_header) const;

    // whole.cpp
    Fate receive_fragment(const Fragment& fragment, const RxFrame& frame, Instant now);
    /// The fate of the datagram is that of the frame which made it whole.
    shm::Counter receive_whole(std::uint32_t index, Instant now);
    shm::Counter receive_whole_tcp(const Packet& packet, Instant now);
    /// The headers behind the fragment header (RFC 8200 §4.5), which lie in the first fragment.
    std::optional<Fate> skip_whole_headers(Packet& packet, Instant now);
    shm::Counter hand_piece_to_tcp(const Packet& packet, std::uint32_t piece,
                                   std::size_t header_bytes, bool ours, Instant now);
    void expire_fragments(Instant now);
    Sent send_segment_job(Job& job, TxFrame& frame);

    // arp.cpp
    Fate receive_arp(const Interface& interface, std::span<const std::byte> bytes, Instant now);
    void defend(std::uint16_t interface, const IpAddress& address, Instant now);
    void send_arp(std::uint16_t interface, wire::ArpOperation operation, const IpAddress& sender,
                  const MacAddress& target_mac, const IpAddress& target, const MacAddress& to);

    // discovery.cpp
    Fate receive_solicitation(const Packet& packet, Instant now);
    Fate receive_advertisement(const Packet& packet, Instant now);
    void found_duplicate(std::uint16_t interface, const IpAddress& address);
    void send_solicitation(std::uint16_t interface, const IpAddress& target,
                           const MacAddress* to, bool detect);
    void send_advertisement(std::uint16_t interface, const IpAddress& target,
                            const IpAddress& to, const MacAddress& mac, bool solicited);
    void send_discovery(std::uint16_t interface, const IpAddress& source, const IpAddress& to,
                        const MacAddress& mac, std::span<const std::byte> message);
    void report_solicited_nodes(std::uint16_t interface, wire::GroupRecordType type);
    void send_mld_report(std::uint16_t interface, std::span<const wire::GroupRecordV6> records);
    void detect_duplicates(std::uint16_t interface, std::size_t position, Instant now);
    void announce_again(std::uint16_t interface, Instant now);
    void advance_interface(std::uint16_t interface, Instant now);
    void advance_addresses(std::uint16_t interface, Instant now);
    const IpAddress* own_v6(std::uint16_t interface, bool link_local) const;

    // routers.cpp
    Fate receive_router(const Packet& packet, Instant now);
    void learn_prefix(std::uint16_t interface, const wire::PrefixOption& prefix, Instant now);
    void learn_router(std::uint16_t interface, const IpAddress& router, std::uint16_t lifetime_s,
                      Instant now);
    void solicit_routers(std::uint16_t interface, Instant now);

    // icmp.cpp
    Fate receive_icmpv4(const Packet& packet, Instant now);
    Fate receive_icmpv6(const Packet& packet, Instant now);
    Fate echo(const Packet& packet, std::uint8_t reply_type, std::uint16_t checksum);
    Fate receive_error(std::uint8_t protocol, std::span<const std::byte> l4,
                       tcp::IcmpError error, Instant now);
    Fate receive_error_v4(const Packet& packet, Instant now);
    Fate receive_error_v6(const Packet& packet, Instant now);
    /// Sends an ICMP error about the packet if that is allowed; returns whether the packet's slot
    /// or chain is kept for it. `even_to_group`: also if the packet came to many (RFC 4443 §2.4
    /// e.3 names the few).
    bool send_error(const Packet& packet, std::uint8_t type, std::uint8_t code,
                    std::uint32_t word, Instant now, bool even_to_group = false);
    bool may_answer_with_error(const Packet& packet, bool even_to_group) const;
    std::optional<IpAddress> error_source(const Packet& packet) const;

    // path_mtu.cpp
    void told_path_mtu(const tcp::IcmpError& error, Instant now);
    void path_mtu_news(const PathMtu& path);
    void renew_narrowed_paths();

    // udp.cpp
    Fate receive_udp(const Packet& packet, Instant now);
    Fate refuse_udp(const Packet& packet, Instant now);
    udp::Fate hand_to_udp(const Packet& packet, const wire::UdpHeader& header);
    Fate receive_udp_error(const tcp::IcmpError& error, Instant now);

    // groups.cpp
    static constexpr std::size_t kRecordsV6 = 6;  ///< of one report
    std::optional<std::uint16_t> group_interface(const IpAddress& group,
                                                 std::uint16_t interface) const;
    void change_group(Group& group, Instant now);
    void report_groups_again(std::uint16_t interface, Instant now);
    std::int64_t random_delay(std::int64_t range_us);
    void group_queried(std::uint16_t interface, const IpAddress& group, std::int64_t within_us,
                       Instant now);
    Fate receive_igmp(const Packet& packet, Instant now);
    Fate receive_listener_query(const Packet& packet, Instant now);
    void advance_groups(Instant now);
    void report_groups_v4(std::uint16_t interface, Instant now);
    void report_groups_v6(std::uint16_t interface, Instant now);
    void send_igmp_v2(std::uint16_t interface, const Group& group);
    void send_igmp_v3(std::uint16_t interface, std::span<const wire::GroupRecordV4> records);
    void send_igmp(std::uint16_t interface, const IpAddress& to,
                   std::span<const std::byte> message);

    // output.cpp
    void fill_path(Path& path, const NextHop& hop, const IpAddress& remote, Instant now) const;
    void fill_local_path(Path& path) const;
    bool renew_path(Path& path, const IpAddress& remote, Instant now);
    BeginResult prepare(Path& path, const IpAddress& remote, Instant now);
    void write_link(TxFrame& frame, const Path& path, const IpAddress& remote, bool to_group);
    void write_group_link(TxFrame& frame, const Interface& interface, const IpAddress& remote);
    void write_headers(TxFrame& frame, const Path& path, const IpAddress& local,
                       const IpAddress& remote, std::uint8_t protocol, std::size_t payload_bytes,
                       IpOptions options, const Cut& cut);
    Sent send_job(Job& job, std::uint32_t index, TxFrame& frame, Instant now);
    Sent send_frame_job(const Job& job, TxFrame& frame);
    void park(std::uint32_t job, std::uint32_t neighbor);
    void drop_waiting(std::uint32_t job);

    // network.cpp
    void follow_changes();
    void solicit(const Neighbor& neighbor, bool multicast, Instant now) override;
    void resolved(std::uint32_t neighbor, Instant now) override;
    void failed(std::uint32_t neighbor, Instant now) override;
    void forgotten(std::uint32_t neighbor) override;

    std::uint32_t shard_;
    std::uint32_t shard_count_;
    FlowMap flow_map_;
    ArenaView rx_arena_;
    shm::CounterBlock& counters_;
    TableCarver carver_;
    SlotReturn slots_;
    Pieces pieces_;
    ControlQueue control_;
    std::size_t parked_jobs_ = 0;  ///< wait for neighbours
    InterfaceTable interfaces_;
    RouteTable routes_;
    NeighborTable neighbors_;
    Reassembly fragments_;
    PathMtuCache path_mtus_;
    GroupTable groups_;
    SipKey secret_;
    TokenBucket error_budget_;
    Burst burst_;
    Leader leader_;
    tcp::Engine* tcp_ = nullptr;
    udp::Engine* udp_ = nullptr;  ///< nullptr: nobody is bound to any UDP port
    std::uint32_t path_mtus_seen_ = 0;  ///< counts the changes of path_mtus_
    std::uint32_t path_mtus_obeyed_ = 0;  ///< up to which of them paths are renewed
    /// For the other shards. What finds no room they learn for themselves.
    static constexpr std::size_t kPathNews = 64;
    std::array<PathMtu, kPathNews> path_news_;
    std::size_t path_news_count_ = 0;
    std::uint64_t delays_drawn_ = 0;
    std::uint32_t seen_version_ = 0;
    std::uint32_t next_id_;
    Instant now_;  ///< of the last call, for route(), which is not told
};

}  // namespace chiru::ip
