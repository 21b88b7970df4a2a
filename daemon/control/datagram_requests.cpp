// SPDX-License-Identifier: Apache-2.0
//
// UDP sockets, as clients ask for them. A name is reserved here, and every shard is told before the
// client hears of it.
#include "daemon/control/server.hpp"

#include <cerrno>
#include <variant>

namespace chiru::daemon {

void Server::open_datagram(Session& session, const shm::Message& request) {
    const shm::OpenDatagramRequest& wanted = request.open_datagram;
    if (wanted.channel >= shm::kMaxChannels ||
        !session.channels.contains(static_cast<ChannelIndex>(wanted.channel)))
        return refuse(session, request, EBADF);
    const Result<OpenDatagram, int> opened =
        datagrams_.open(session.index, session.peer.uid, wanted);
    if (!opened) return refuse(session, request, opened.error());
    shm::Message message = answer_to(request);
    message.datagram = {.socket = opened->config.id, .local = opened->config.local};
    order(session, {*opened}, message);
}

void Server::connect_datagram(Session& session, const shm::Message& request) {
    const shm::ConnectDatagramRequest& wanted = request.connect_datagram;
    if (!datagrams_.holds(session.index, wanted.socket)) return refuse(session, request, EBADF);
    const std::uint16_t port = datagrams_.local_of(wanted.socket).port;
    const auto connected = [this, request, port](Session& owner, const Report& report) {
        const auto* how = std::get_if<DatagramConnected>(&report.what);
        if (how == nullptr || how->error != 0)
            return refuse(owner, request, how == nullptr ? EIO : how->error);
        shm::Message message = answer_to(request);
        message.datagram = {.socket = request.connect_datagram.socket,
                            .local = {how->local, port},
                            .path_mtu = how->path_mtu};
        reply(owner, message);
    };
    const std::uint64_t tag = expect(session, plane_.shard_count(), connected);
    plane_.post_to_all({.tag = tag,
                        .what = ConnectDatagram{.socket = wanted.socket,
                                                .remote = wanted.remote,
                                                .interface = wanted.interface}});
}

void Server::close_datagram(Session& session, const shm::Message& request) {
    const Result<Orders, int> orders =
        datagrams_.close(session.index, request.close_datagram.socket);
    if (!orders) return refuse(session, request, orders.error());
    order(session, *orders, answer_to(request));
}

void Server::membership(Session& session, const shm::Message& request) {
    if (!datagrams_.holds(session.index, request.membership.socket))
        return refuse(session, request, EBADF);
    if (request.membership.join != 0) {
        if (!datagrams_.may_join(session.index, request.membership))
            return refuse(session, request, ENOBUFS);
        return join(session, request);
    }
    const Result<LeaveGroup, int> left = datagrams_.leave(request.membership);
    if (!left) return refuse(session, request, left.error());
    order(session, {*left}, answer_to(request));
}

void Server::join(Session& session, const shm::Message& request) {
    const Result<JoinGroup, int> wanted = datagrams_.join(request.membership);
    if (!wanted) return refuse(session, request, wanted.error());
    const auto joined = [this, request](Session& owner, const Report& report) {
        const auto* how = std::get_if<GroupJoined>(&report.what);
        if (how != nullptr && how->error == 0) {
            datagrams_.joined(request.membership, how->interface);
            return reply(owner, answer_to(request));
        }
        datagrams_.forget(request.membership);
        refuse(owner, request, how == nullptr ? EIO : how->error);
    };
    const std::uint64_t tag = expect(session, plane_.shard_count(), joined);
    plane_.post_to_all({.tag = tag, .what = *wanted});
}

}  // namespace chiru::daemon
