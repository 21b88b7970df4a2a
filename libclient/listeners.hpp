// SPDX-License-Identifier: Apache-2.0
//
// The addresses a session has bound, and how many of its sockets share each. Several channels of a
// process may accept from one listener; it ends with the last of them. Thread-safe.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "libclient/session.hpp"
#include "shm/control.hpp"

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace chiru::client {

class Listeners {
public:
    explicit Listeners(std::shared_ptr<Session> session) : session_(std::move(session)) {}

    Result<shm::BindReply, int> bind(const Endpoint& local, std::uint32_t bind_flags);
    /// One more holder; the daemon is asked only if the session has no part in it yet.
    Result<shm::BindReply, int> join(shm::ListenerId id, const shm::ListenerToken& token);
    /// One holder less; the last one unbinds.
    void leave(shm::ListenerId id);

private:
    struct Shared {
        shm::BindReply reply;
        std::uint32_t holders = 0;
    };

    std::shared_ptr<Session> session_;
    std::mutex mutex_;
    std::unordered_map<std::uint32_t, Shared> shared_;
};

}  // namespace chiru::client
