// SPDX-License-Identifier: Apache-2.0
#include "stack/udp/sockets.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace chiru::udp {
namespace {

/// How well a socket's own address fits; 0: not at all.
int fit(const Socket& socket, const IpAddress& address) {
    const IpAddress& own = socket.info.local_address;
    if (own == address) return 3;
    if (!own.is_unspecified()) return 0;
    if (own.is_v4() == address.is_v4()) return 2;
    return own.is_v6() && socket.info.v6_only == 0 ? 1 : 0;
}

}  // namespace

Sockets::Sockets(const Tables& tables, const SipKey& key) : tables_(tables), key_(key) {
    std::fill_n(tables_.ports, 65'536, kNil);
    std::fill_n(tables_.connected, kBuckets, kNil);
}

Socket* Sockets::find(shm::DatagramId id) {
    Socket& socket = tables_.sockets[place_of(id)];
    const bool same = socket.info.in_use != 0 && socket.info.id == static_cast<std::uint32_t>(id);
    return same ? &socket : nullptr;
}

std::uint64_t Sockets::hash_of(const Endpoint& remote, const Endpoint& local) const {
    std::array<std::byte, 36> bytes;
    std::memcpy(bytes.data(), remote.address.bytes().data(), 16);
    std::memcpy(bytes.data() + 16, local.address.bytes().data(), 16);
    std::memcpy(bytes.data() + 32, &remote.port, 2);
    std::memcpy(bytes.data() + 34, &local.port, 2);
    return siphash(key_, bytes);
}

Socket& Sockets::open(const Socket& opened) {
    Socket& socket = tables_.sockets[place_of(shm::DatagramId{opened.info.id})];
    DCHECK(socket.info.in_use == 0);
    socket = opened;
    socket.info.in_use = 1;
    socket.bound = opened.info.local_address;
    Index& head = tables_.ports[socket.info.local_port];
    socket.port_next = head;  // the last one bound is asked first
    head = index_of(socket);
    high_ = std::max(high_, head + 1);
    return socket;
}

void Sockets::connect(Socket& socket, const Endpoint& local, const Endpoint& remote) {
    disconnect(socket);
    socket.info.local_address = local.address;
    socket.info.remote_address = remote.address;
    socket.info.remote_port = remote.port;
    socket.info.connected = 1;
    Index& head = tables_.connected[hash_of(remote, local) % kBuckets];
    socket.connected_next = head;
    head = index_of(socket);
    ++connected_count_;
}

void Sockets::unlink_connected(Socket& socket) {
    Index* at = &tables_.connected[hash_of(socket.remote(), socket.local()) % kBuckets];
    while (*at != index_of(socket)) at = &tables_.sockets[*at].connected_next;
    *at = socket.connected_next;
    socket.connected_next = kNil;
    --connected_count_;
}

void Sockets::disconnect(Socket& socket) {
    if (socket.info.connected == 0) return;
    unlink_connected(socket);
    socket.info.local_address = socket.bound;
    socket.info.connected = 0;
    socket.info.remote_address = {};
    socket.info.remote_port = 0;
}

void Sockets::close(Socket& socket) {
    if (socket.info.connected != 0) unlink_connected(socket);
    Index* at = &tables_.ports[socket.info.local_port];
    while (*at != index_of(socket)) at = &tables_.sockets[*at].port_next;
    *at = socket.port_next;
    socket.info.in_use = 0;
}

Socket* Sockets::match(const Endpoint& remote, const Endpoint& local) {
    if (connected_count_ != 0) {
        Index i = tables_.connected[hash_of(remote, local) % kBuckets];
        for (; i != kNil; i = tables_.sockets[i].connected_next) {
            Socket& socket = tables_.sockets[i];
            if (socket.local() == local && socket.remote() == remote) return &socket;
        }
    }
    Socket* best = nullptr;
    int best_fit = 0;
    std::uint32_t equals = 0;
    for (Index i = tables_.ports[local.port]; i != kNil; i = tables_.sockets[i].port_next) {
        Socket& socket = tables_.sockets[i];
        if (socket.info.connected != 0) continue;
        const int fits = fit(socket, local.address);
        if (fits == 0 || fits < best_fit) continue;
        if (fits == best_fit) {
            if (best->reuse_port != 0 && socket.reuse_port != 0) ++equals;
            continue;
        }
        best = &socket;
        best_fit = fits;
        equals = 1;
    }
    if (equals < 2) return best;
    // The n-th of them: the same for all datagrams between these two ends.
    std::uint64_t n = hash_of(remote, local) % equals;
    for (Index i = tables_.ports[local.port]; i != kNil; i = tables_.sockets[i].port_next) {
        Socket& socket = tables_.sockets[i];
        if (socket.info.connected != 0 || socket.reuse_port == 0 ||
            fit(socket, local.address) != best_fit)
            continue;
        if (n-- == 0) return &socket;
    }
    return best;
}

bool Sockets::takes_group(const Socket& socket, const Endpoint& remote, const IpAddress& group) {
    if (fit(socket, group) == 0) return false;
    return socket.info.connected == 0 || socket.remote() == remote;
}

}  // namespace chiru::udp
