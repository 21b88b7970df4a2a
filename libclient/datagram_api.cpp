// SPDX-License-Identifier: Apache-2.0
//
// The C interface's part about UDP.
#include "libclient/api.hpp"
#include "libclient/sockaddr.hpp"

#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

using namespace chiru;
using namespace chiru::client;

namespace {

constexpr std::uint32_t kSendFlags = CHIRU_DONT_FRAGMENT | CHIRU_NO_LOOP;

/// Where to: the address given, or the peer. A negative errno value if there is neither.
int target_of(const Socket& socket, std::uint32_t flags, std::uint16_t segment_bytes,
              const sockaddr* address, socklen_t bytes, DatagramTarget& target) {
    if ((flags & ~kSendFlags) != 0) return -EINVAL;
    if (socket.state != SocketState::Datagrams) return -EINVAL;
    target.segment_bytes = segment_bytes;
    if ((flags & CHIRU_DONT_FRAGMENT) != 0) target.flags |= shm::kNeverFragment;
    if ((flags & CHIRU_NO_LOOP) != 0) target.flags |= shm::kNoLoop;
    if (address == nullptr) {
        target.remote = socket.remote;
        return (socket.flags & kHasPeer) != 0 ? 0 : -EDESTADDRREQ;
    }
    const std::optional<Endpoint> remote = from_sockaddr(address, bytes);
    if (!remote) return -EAFNOSUPPORT;
    target.remote = *remote;
    return 0;
}

void describe(const RxDatagram& datagram, chiru_datagram* info) {
    if (info == nullptr) return;
    *info = {};
    socklen_t bytes = sizeof info->from;
    to_sockaddr(datagram.remote, reinterpret_cast<sockaddr*>(&info->from), &bytes);
    info->bytes = datagram.bytes;
    info->interface_number = datagram.interface;
    info->time_to_live = datagram.ttl;
    info->type_of_service = datagram.tos;
}

}  // namespace

int chiru_udp_bind(chiru_channel* channel, chiru_socket socket, const sockaddr* address,
                   socklen_t address_bytes, uint32_t flags) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        const std::optional<Endpoint> local = from_sockaddr(address, address_bytes);
        if (!local) return -EAFNOSUPPORT;
        if ((flags & ~(CHIRU_REUSE_ADDRESS | CHIRU_REUSE_PORT | CHIRU_V6_ONLY)) != 0 ||
            channel->bound.contains(found.name.index))
            return -EINVAL;
        return answer(rings.open_datagrams(found, *local, flags));
    });
}

int chiru_udp_connect(chiru_channel* channel, chiru_socket socket, const sockaddr* address,
                      socklen_t address_bytes) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        if (address == nullptr) return answer(rings.connect_datagrams(found, {}));
        const std::optional<Endpoint> remote = from_sockaddr(address, address_bytes);
        if (!remote) return -EAFNOSUPPORT;
        if (remote->port == 0) return -EINVAL;
        return answer(rings.connect_datagrams(found, *remote));
    });
}

int chiru_udp_membership(chiru_channel* channel, chiru_socket socket, const sockaddr* group,
                         socklen_t group_bytes, uint32_t interface_number, int join) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        const std::optional<Endpoint> address = from_sockaddr(group, group_bytes);
        if (!address) return -EAFNOSUPPORT;
        if (interface_number > shm::kMaxInterfaces) return -ENODEV;
        return answer(rings.set_membership(found, address->address,
                                           static_cast<std::uint16_t>(interface_number),
                                           join != 0));
    });
}

ssize_t chiru_sendto(chiru_channel* channel, chiru_socket socket, const void* data, size_t bytes,
                     uint32_t flags, uint16_t segment_bytes, const sockaddr* address,
                     socklen_t address_bytes) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) -> ssize_t {
        if (data == nullptr && bytes != 0) return -EINVAL;
        DatagramTarget target;
        const int error = target_of(found, flags, segment_bytes, address, address_bytes, target);
        if (error != 0) return error;
        const std::span<const std::byte> piece(static_cast<const std::byte*>(data), bytes);
        return count_of(rings.send_datagram(found, {&piece, 1}, target));
    });
}

ssize_t chiru_sendto_buffer(chiru_channel* channel, chiru_socket socket, uint64_t token,
                            size_t offset, size_t bytes, uint32_t flags, uint16_t segment_bytes,
                            const sockaddr* address, socklen_t address_bytes) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) -> ssize_t {
        DatagramTarget target;
        const int error = target_of(found, flags, segment_bytes, address, address_bytes, target);
        if (error != 0) return error;
        return count_of(
            rings.send_datagram_buffer(found, private_token(token), offset, bytes, target));
    });
}

ssize_t chiru_recvfrom(chiru_channel* channel, chiru_socket socket, void* data, size_t bytes,
                       uint32_t flags, chiru_datagram* info) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) -> ssize_t {
        if ((data == nullptr && bytes != 0) || (flags & ~CHIRU_PEEK) != 0) return -EINVAL;
        const auto oldest = rings.next_datagram(found);
        if (!oldest) return -oldest.error();
        const std::span<std::byte> room(static_cast<std::byte*>(data), bytes);
        const std::size_t copied = rings.copy_datagram(**oldest, {&room, 1});
        describe(**oldest, info);
        if ((flags & CHIRU_PEEK) == 0) rings.drop_datagram(found);
        return static_cast<ssize_t>(copied);
    });
}

int chiru_recv_datagram(chiru_channel* channel, chiru_socket socket, chiru_slice* slices,
                        int count, chiru_datagram* info) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        if (slices == nullptr || count <= 0) return -EINVAL;
        const auto oldest = rings.next_datagram(found);
        if (!oldest) return -oldest.error();
        const RxDatagram described = **oldest;
        std::vector<Lent> pieces(static_cast<std::size_t>(count));
        const auto lent = rings.borrow_datagram(found, pieces);
        if (!lent) return -lent.error();
        describe(described, info);
        for (std::size_t i = 0; i < *lent; ++i)
            slices[i] = {pieces[i].bytes.data(), pieces[i].bytes.size(),
                         public_token(pieces[i].token)};
        return static_cast<int>(*lent);
    });
}
