// SPDX-License-Identifier: Apache-2.0
//
// The UDP sockets of a stack, and who gets a datagram. A socket has its place in the table by its
// name; those of a port are chained, and connected ones are found by a hash of both ends, so that
// a server with a connected socket for each of its peers walks no list of them.
//
//   unicast   the connected socket of just these two ends; else, of those bound to the port, one
//             bound to the address before one bound to any. Equals with kBindReusePort share by a
//             hash of the ends; otherwise the one bound last gets all, as Linux has it
//   groups    every socket that is bound to the port, and to the group or to any address
#pragma once

#include "base/address.hpp"
#include "base/siphash.hpp"
#include "shm/descriptor.hpp"
#include "shm/tables.hpp"
#include "stack/lower.hpp"
#include "stack/session.hpp"
#include "stack/tcp/index.hpp"

#include <cstdint>

namespace chiru::udp {

using tcp::Index;
using tcp::kNil;

/// What a fresh socket may let wait: what Linux has as default.
inline constexpr std::uint32_t kDefaultReceiveBuffer = 212'992;
inline constexpr std::uint32_t kMinReceiveBuffer = 2'304;
inline constexpr std::uint32_t kMaxReceiveBuffer = 64u << 20;
/// What each receive slot counts beside its payload.
inline constexpr std::uint32_t kSlotOverhead = 768;

/// The way to the last destination, so that it is not looked up for each datagram.
struct CachedRoute {
    IpAddress remote;
    IpAddress asked;   ///< the source that was asked for
    IpAddress source;  ///< and what came of it
    Path path;
    std::uint32_t version = 0;
    std::uint16_t interface = 0;  ///< asked for
    std::uint16_t link_mtu = 0;   ///< 0: nothing is cached
    bool group = false;
};

struct Socket {
    shm::DatagramInfo info;
    Index port_next = kNil;
    Index connected_next = kNil;
    Index error_next = kNil;     ///< in its channel's list of those with an error to tell
    std::uint32_t error_mtu = 0;
    Endpoint error_remote;
    std::uint16_t error = 0;     ///< errno value
    SessionIndex session = 0;
    ChannelIndex channel = 0;
    std::uint8_t reuse_port = 0;
    std::uint8_t want_destination = 0;
    IpAddress bound;  ///< the local address while it is not connected
    CachedRoute route;

    Endpoint local() const { return {info.local_address, info.local_port}; }
    Endpoint remote() const { return {info.remote_address, info.remote_port}; }
};

class Sockets {
public:
    struct Tables {
        explicit Tables(tcp::TableLayout& layout)
            : sockets(layout.take<Socket>(shm::kMaxDatagramSockets)),
              ports(layout.take<Index>(65'536)),
              connected(layout.take<Index>(kBuckets)) {}
        Socket* sockets;
        Index* ports;
        Index* connected;
    };

    Sockets(const Tables& tables, const SipKey& key);

    Socket& operator[](Index i) { return tables_.sockets[i]; }
    /// The socket of that name, or nullptr if it is no more.
    Socket* find(shm::DatagramId id);
    /// All that were ever used lie below.
    Index high() const { return high_; }
    Index index_of(const Socket& socket) const {
        return static_cast<Index>(&socket - tables_.sockets);
    }

    /// Links a socket whose place is free; `info` holds its name and local end.
    Socket& open(const Socket& socket);
    void connect(Socket& socket, const Endpoint& local, const Endpoint& remote);
    void disconnect(Socket& socket);
    void close(Socket& socket);

    /// Whose unicast datagram is it? nullptr: nobody's.
    Socket* match(const Endpoint& remote, const Endpoint& local);
    /// Calls visit(socket) for each that takes datagrams to this group.
    template <class Visit>
    void for_each_member(const Endpoint& remote, const Endpoint& group, Visit&& visit) {
        for (Index i = tables_.ports[group.port]; i != kNil;) {
            Socket& socket = tables_.sockets[i];
            i = socket.port_next;
            if (takes_group(socket, remote, group.address)) visit(socket);
        }
    }

private:
    static constexpr std::uint32_t kBuckets = 2 * shm::kMaxDatagramSockets;

    std::uint64_t hash_of(const Endpoint& remote, const Endpoint& local) const;
    static bool takes_group(const Socket& socket, const Endpoint& remote, const IpAddress& group);
    void unlink_connected(Socket& socket);

    Tables tables_;
    SipKey key_;
    std::uint32_t connected_count_ = 0;
    Index high_ = 0;
};

}  // namespace chiru::udp
