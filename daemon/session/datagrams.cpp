// SPDX-License-Identifier: Apache-2.0
#include "daemon/session/datagrams.hpp"

#include "stack/ip/groups.hpp"

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

namespace chiru::daemon {
namespace {

constexpr std::uint32_t kKnownFlags =
    shm::kBindReuseAddress | shm::kBindReusePort | shm::kBindV6Only;
/// The last places are for sessions that have few sockets, whatever the others do.
constexpr std::size_t kReservedPlaces = shm::kMaxDatagramSockets / 16;
constexpr std::uint32_t kFew = 8;

}  // namespace

Datagrams::Datagrams(const Listeners::Rules& rules,
                     std::function<bool(const IpAddress&)> is_ours,
                     std::function<std::uint64_t()> random)
    : rules_(rules), is_ours_(std::move(is_ours)), random_(std::move(random)) {}

std::uint32_t Datagrams::held_by(SessionIndex session) const {
    return static_cast<std::uint32_t>(std::count_if(
        sockets_.begin(), sockets_.end(),
        [session](const auto& entry) { return entry.second.session == session; }));
}

bool Datagrams::may_join(SessionIndex session, const shm::MembershipRequest& request) const {
    using Group = std::pair<IpAddress, std::uint16_t>;
    std::set<Group> all, own;
    for (const auto& [id, socket] : sockets_) {
        for (const Membership& membership : socket.memberships) {
            const Group group{membership.group, membership.interface};
            all.insert(group);
            if (socket.session == session) own.insert(group);
        }
    }
    if (all.contains({request.group, request.interface})) return true;
    return own.size() + all.size() < ip::kGroups;  // no more than is left to the others
}

bool Datagrams::holds(SessionIndex session, shm::DatagramId id) const {
    const auto found = sockets_.find(id);
    return found != sockets_.end() && found->second.session == session;
}

bool Datagrams::conflicts(const Socket& candidate) const {
    const auto same_port = by_port_.find(candidate.local.port);
    if (same_port == by_port_.end()) return false;
    return std::any_of(same_port->second.begin(), same_port->second.end(), [&](auto id) {
        const Socket& other = sockets_.at(id);
        if (!covers(other.local.address, other.flags, candidate.local.address) &&
            !covers(candidate.local.address, candidate.flags, other.local.address))
            return false;
        const std::uint32_t both = other.flags & candidate.flags;
        if ((both & shm::kBindReuseAddress) != 0) return false;
        return (both & shm::kBindReusePort) == 0 || other.uid != candidate.uid;
    });
}

Result<std::uint16_t, int> Datagrams::choose_port(Socket candidate) const {
    candidate.flags &= shm::kBindV6Only;  // a chosen port is shared with nobody
    const std::uint32_t count = rules_.last_port - rules_.first_port + 1u;
    const auto start = static_cast<std::uint32_t>(random_() % count);
    for (std::uint32_t i = 0; i < count; ++i) {
        candidate.local.port = static_cast<std::uint16_t>(rules_.first_port + (start + i) % count);
        if (!conflicts(candidate)) return candidate.local.port;
    }
    return std::unexpected(EADDRINUSE);
}

Result<OpenDatagram, int> Datagrams::open(SessionIndex session, std::uint32_t uid,
                                          const shm::OpenDatagramRequest& request) {
    const IpAddress& address = request.endpoint.address;
    if ((request.flags & ~kKnownFlags) != 0) return std::unexpected(EINVAL);
    if (!address.is_unspecified() && !address.is_multicast() && !is_ours_(address))
        return std::unexpected(EADDRNOTAVAIL);
    if (request.endpoint.port != 0 && request.endpoint.port < rules_.first_unprivileged_port &&
        uid != 0)
        return std::unexpected(EACCES);
    const std::uint32_t held = held_by(session);
    if (held >= rules_.max_per_session || (held >= kFew && places_.left() <= kReservedPlaces))
        return std::unexpected(ENOBUFS);
    Socket socket{.local = request.endpoint,
                  .flags = request.flags,
                  .uid = uid,
                  .session = session,
                  .channel = static_cast<ChannelIndex>(request.channel),
                  .memberships = {}};
    if (socket.local.port == 0) {
        const Result<std::uint16_t, int> port = choose_port(socket);
        if (!port) return std::unexpected(port.error());
        socket.local.port = *port;
    }
    if (conflicts(socket)) return std::unexpected(EADDRINUSE);
    const std::optional<std::uint16_t> place = places_.take();
    if (!place) return std::unexpected(ENOBUFS);
    constexpr std::uint32_t kGenerations = 0xffff'ffffu / shm::kMaxDatagramSockets;
    last_generation_ = last_generation_ % kGenerations + 1;  // never 0
    const shm::DatagramId id{last_generation_ * shm::kMaxDatagramSockets + *place};
    by_port_[socket.local.port].push_back(id);
    const OpenDatagram order{.config = {.id = id,
                                        .local = socket.local,
                                        .flags = socket.flags,
                                        .session = session,
                                        .channel = socket.channel,
                                        .receive_buffer = request.receive_buffer,
                                        .user = request.user}};
    sockets_.emplace(id, std::move(socket));
    return order;
}

void Datagrams::drop(shm::DatagramId id, Orders& orders) {
    const auto found = sockets_.find(id);
    const Socket& socket = found->second;
    orders.push_back(CloseDatagram{.socket = id, .channel = socket.channel});
    for (const Membership& membership : socket.memberships)
        orders.push_back(membership.leaving());
    const auto same_port = by_port_.find(socket.local.port);
    std::erase(same_port->second, id);
    if (same_port->second.empty()) by_port_.erase(same_port);
    places_.give_back(static_cast<std::uint16_t>(place_of(id)));
    sockets_.erase(found);
}

Result<Orders, int> Datagrams::close(SessionIndex session, shm::DatagramId id) {
    if (!holds(session, id)) return std::unexpected(EBADF);
    Orders orders;
    drop(id, orders);
    return orders;
}

Orders Datagrams::end_session(SessionIndex session) {
    std::vector<shm::DatagramId> held;
    for (const auto& [id, socket] : sockets_)
        if (socket.session == session) held.push_back(id);
    Orders orders;
    for (const shm::DatagramId id : held) drop(id, orders);
    return orders;
}

Datagrams::Membership* Datagrams::find(const shm::MembershipRequest& request) {
    const auto socket = sockets_.find(request.socket);
    if (socket == sockets_.end()) return nullptr;
    std::vector<Membership>& all = socket->second.memberships;
    const auto found = std::find_if(all.begin(), all.end(), [&](const Membership& membership) {
        return membership.is(request);
    });
    return found == all.end() ? nullptr : &*found;
}

Result<JoinGroup, int> Datagrams::join(const shm::MembershipRequest& request) {
    if (!request.group.is_multicast()) return std::unexpected(EINVAL);
    if (find(request) != nullptr) return std::unexpected(EADDRINUSE);
    std::vector<Membership>& memberships = sockets_.at(request.socket).memberships;
    if (memberships.size() >= kMaxMemberships) return std::unexpected(ENOBUFS);
    memberships.push_back({.group = request.group, .interface = request.interface});
    return JoinGroup{.group = request.group, .interface = request.interface};
}

void Datagrams::joined(const shm::MembershipRequest& request, std::uint16_t interface) {
    if (Membership* membership = find(request)) membership->joined_on = interface;
}

void Datagrams::forget(const shm::MembershipRequest& request) {
    const auto found = sockets_.find(request.socket);
    if (found == sockets_.end()) return;
    std::erase_if(found->second.memberships,
                  [&](const Membership& membership) { return membership.is(request); });
}

Result<LeaveGroup, int> Datagrams::leave(const shm::MembershipRequest& request) {
    const Membership* membership = find(request);
    if (membership == nullptr) return std::unexpected(EADDRNOTAVAIL);
    const LeaveGroup left = membership->leaving();
    forget(request);
    return left;
}

}  // namespace chiru::daemon
