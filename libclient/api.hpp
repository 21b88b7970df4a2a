// SPDX-License-Identifier: Apache-2.0
//
// What the sources of the C interface share: the objects behind its pointers, and how names are
// resolved and results turned into negative errno values. Private to them.
#pragma once

#include "chiru/chiru.h"
#include "libclient/channel.hpp"
#include "libclient/listeners.hpp"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <new>
#include <unordered_map>
#include <utility>

struct chiru_session {
    std::shared_ptr<chiru::client::Session> session;
    std::shared_ptr<chiru::client::Listeners> listeners;
};

struct chiru_channel {
    std::shared_ptr<chiru::client::Session> session;
    std::shared_ptr<chiru::client::Listeners> listeners;
    std::unique_ptr<chiru::client::Channel> channel;
    std::unordered_map<std::uint32_t, chiru::shm::BindReply> bound;  ///< by socket index
    bool armed = false;
};

namespace chiru::client {

inline chiru_socket public_name(const Socket& socket) {
    return chiru_socket{socket.name.generation} << 32 | socket.name.index;
}

inline std::uint64_t public_token(Token token) {
    return std::uint64_t{token.generation} << 32 | token.index;
}

inline Token private_token(std::uint64_t token) {
    return {.index = static_cast<std::uint32_t>(token),
            .generation = static_cast<std::uint32_t>(token >> 32)};
}

template <class T>
int answer(const Result<T, int>& result) {
    return result ? 0 : -result.error();
}

template <class T>
ssize_t count_of(const Result<T, int>& result) {
    return result ? static_cast<ssize_t>(*result) : -result.error();
}

/// Runs `call`; memory that runs out is an error like others.
template <class Call>
auto guarded(Call&& call) -> decltype(call()) {
    try {
        return call();
    } catch (const std::bad_alloc&) {
        return -ENOMEM;
    } catch (...) {
        return -EIO;
    }
}

/// Calls with the socket of that name.
template <class Call>
auto with_socket(chiru_channel* channel, chiru_socket name, Call&& call)
    -> decltype(call(std::declval<Channel&>(), std::declval<Socket&>())) {
    if (channel == nullptr) return -EINVAL;
    Socket* socket = channel->channel->find({.index = static_cast<std::uint32_t>(name),
                                             .generation = static_cast<std::uint32_t>(name >> 32)});
    if (socket == nullptr) return -EINVAL;
    return guarded([&] { return call(*channel->channel, *socket); });
}

}  // namespace chiru::client
