// SPDX-License-Identifier: Apache-2.0
//
// What a transport asks of the layers below it, and what it is told by them. ip/ implements Lower;
// tcp/ implements Upper. tcp/ does not know ip/; ip/ knows of tcp/ only the engine it feeds.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "stack/frame.hpp"

#include <cstdint>

namespace chiru {

inline constexpr std::uint16_t kAnyInterface = 0xffff;

/// The way to a remote host, as a connection keeps it. Plain data: it lies in connection blocks.
/// `neighbor` and `generation` are the lower layer's; a path that went stale is renewed by it.
struct Path {
    std::uint16_t interface = 0;
    std::uint16_t mtu = 0;         ///< IP packet bytes, as far as is known; renewed with the rest
    std::uint32_t neighbor = 0;
    std::uint32_t generation = 0;
    std::uint8_t local = 0;        ///< 1: the remote is one of our own addresses
    std::uint8_t offload_l4 = 0;   ///< 1: the port completes TCP checksums (or the path is local)
    std::uint16_t tso_bytes = 0;   ///< payload that is cut into segments behind us; 0: none
};
static_assert(sizeof(Path) == 16);

/// The largest packets that reach a host, as one shard tells the others.
struct PathMtu {
    IpAddress remote;
    std::uint16_t mtu = 0;  ///< IP packet bytes
    bool told = false;      ///< by a router: it does not raise what others know
};

/// What goes into the IP header.
struct IpOptions {
    std::uint8_t tos = 0;   ///< IPv4 TOS or IPv6 traffic class, ECN bits included
    std::uint8_t ttl = 64;  ///< or hop limit
};

enum class BeginResult : std::uint8_t {
    Ready,       ///< headers are written, TCP's go to head + head_length
    Unresolved,  ///< the neighbour's address is being asked for; Upper::path_ready() follows
    Unreachable, ///< no route any longer, or the neighbour does not answer
};

class Lower {
public:
    virtual ~Lower() = default;

    /// The way to `remote`, and our address to use when `local` is unspecified. ENETUNREACH
    /// without a route; EADDRNOTAVAIL if `local` is given and not ours. `link` is where a packet to
    /// answer came in: a link-local `remote` means a host there (RFC 4007 §6).
    struct Route {
        Path path;
        IpAddress local;
    };
    virtual Result<Route, int> route(const IpAddress& remote, const IpAddress& local,
                                     std::uint16_t link = kAnyInterface) = 0;

    /// Is `address` one of ours and usable (not tentative)?
    virtual bool is_local(const IpAddress& address) const = 0;

    /// Writes link and IP headers for a packet with `l4_bytes` behind the IP header (for kTxSegment
    /// frames: of the whole) to frame.head, and sets head_length, port, l2_bytes, l3_bytes and
    /// flags. Refreshes `path` if it went stale.
    virtual BeginResult begin(TxFrame& frame, Path& path, const IpAddress& local,
                              const IpAddress& remote, std::uint8_t protocol,
                              std::size_t l4_bytes, IpOptions options, Instant now) = 0;

    /// The largest packets that the path's interface takes, whatever is known of the way behind.
    virtual std::uint16_t link_mtu(const Path& path) const = 0;

    /// What a transport found out by itself (RFC 4821): packets of `mtu` bytes reach `remote`, and
    /// larger ones may, or do not.
    enum class Larger : std::uint8_t { May, Vanish };
    virtual void found_path_mtu(const IpAddress& remote, std::uint16_t mtu, Larger larger,
                                Instant now) = 0;

    /// The connection made progress with this path: its neighbour is alive (RFC 4861 §7.3.1).
    virtual void confirm(const Path& path, Instant now) = 0;
};

/// What UDP asks besides: its packets may go to groups, and may be cut into fragments.
class DatagramLower : public Lower {
public:
    /// Fragment fields of an IP header to be written.
    struct Cut {
        std::uint32_t id = 0;
        std::size_t offset = 0;
        bool more = false;
        bool dont_fragment = true;
        bool to_group = false;  ///< to all that listen on the path's interface: no neighbour
        bool is_fragment() const { return offset != 0 || more; }
    };

    /// As route(), and to groups and broadcast addresses as well. `interface` counts from 1; 0:
    /// the routes decide. `link_mtu` is the interface's own.
    struct DatagramRoute {
        Path path;
        IpAddress local;
        std::uint16_t link_mtu = 0;
        bool group = false;  ///< to all that listen on the interface
    };
    virtual Result<DatagramRoute, int> datagram_route(const IpAddress& remote,
                                                      const IpAddress& local,
                                                      std::uint16_t interface) = 0;
    /// Changes whenever an answer of datagram_route() may change.
    virtual std::uint32_t route_version() const = 0;

    /// As begin(), for a packet that may be a fragment, with `payload_bytes` behind its headers.
    virtual BeginResult begin_datagram(TxFrame& frame, Path& path, const IpAddress& local,
                                       const IpAddress& remote, std::uint8_t protocol,
                                       std::size_t payload_bytes, IpOptions options,
                                       const Cut& cut, Instant now) = 0;
    virtual std::uint32_t next_packet_id() = 0;

    /// Is this host a member of the group, on any interface?
    virtual bool is_member(const IpAddress& group) const = 0;
};

class Upper {
public:
    virtual ~Upper() = default;
    /// Packets to this neighbour can be sent again, or its resolution failed.
    virtual void path_ready(std::uint32_t neighbor, bool reachable, Instant now) = 0;
};

}  // namespace chiru
