// SPDX-License-Identifier: Apache-2.0
//
// Who owns which UDP socket: names and ports, memberships, and what becomes of them when sessions
// come and go. Pure bookkeeping, as Listeners is for TCP; what the shards must be told is returned
// as orders. UDP's ports are their own, not TCP's.
//
// The rules are those of Linux: two sockets conflict if their ports are equal and an address is in
// both, unless both have kBindReuseAddress, or both kBindReusePort and one user. Peers do not
// count: a connected socket holds its port as any other.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "daemon/session/listeners.hpp"
#include "daemon/session/slots.hpp"
#include "shm/control.hpp"
#include "stack/session.hpp"

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

namespace chiru::daemon {

class Datagrams {
public:
    /// As for Listeners; `max_listeners` counts sockets here.
    Datagrams(const Listeners::Rules& rules, std::function<bool(const IpAddress&)> is_ours,
              std::function<std::uint64_t()> random);

    // Errors are errno values, as the call of that name has them.

    Result<OpenDatagram, int> open(SessionIndex session, std::uint32_t uid,
                                   const shm::OpenDatagramRequest& request);
    /// May the session speak of this socket?
    bool holds(SessionIndex session, shm::DatagramId id) const;
    /// The local end it was bound to.
    Endpoint local_of(shm::DatagramId id) const { return sockets_.at(id).local; }
    Result<Orders, int> close(SessionIndex session, shm::DatagramId id);
    Orders end_session(SessionIndex session);

    /// Notes a membership, `interface` as it was asked for. EADDRINUSE: it is one already;
    /// ENOBUFS: no more for this socket.
    Result<JoinGroup, int> join(const shm::MembershipRequest& request);
    /// The shards took it, on this interface.
    void joined(const shm::MembershipRequest& request, std::uint16_t interface);
    /// The shards refused it.
    void forget(const shm::MembershipRequest& request);
    /// EADDRNOTAVAIL: it is no member.
    Result<LeaveGroup, int> leave(const shm::MembershipRequest& request);

    std::uint32_t held_by(SessionIndex session) const;
    /// May the session have one group more, if this is one? A shard has places for ip::kGroups.
    bool may_join(SessionIndex session, const shm::MembershipRequest& request) const;

    static constexpr std::size_t kMaxMemberships = 32;  ///< of one socket

private:
    struct Membership {
        IpAddress group;
        std::uint16_t interface = 0;  ///< as it was asked for; 0: where a route leads
        std::uint16_t joined_on = 0;  ///< 0: not answered yet
        bool is(const shm::MembershipRequest& wish) const {
            return group == wish.group && interface == wish.interface;
        }
        /// Where it was joined: since then routes may have changed.
        LeaveGroup leaving() const { return {group, joined_on != 0 ? joined_on : interface}; }
    };
    struct Socket {
        Endpoint local;
        std::uint32_t flags = 0;
        std::uint32_t uid = 0;
        SessionIndex session = 0;
        ChannelIndex channel = 0;
        std::vector<Membership> memberships;
    };

    Membership* find(const shm::MembershipRequest& request);
    bool conflicts(const Socket& candidate) const;
    Result<std::uint16_t, int> choose_port(Socket candidate) const;
    void drop(shm::DatagramId id, Orders& orders);

    Listeners::Rules rules_;
    std::function<bool(const IpAddress&)> is_ours_;
    std::function<std::uint64_t()> random_;
    Slots places_{shm::kMaxDatagramSockets};
    std::unordered_map<shm::DatagramId, Socket> sockets_;
    std::unordered_map<std::uint16_t, std::vector<shm::DatagramId>> by_port_;
    std::uint32_t last_generation_ = 0;
};

}  // namespace chiru::daemon
