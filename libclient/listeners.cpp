// SPDX-License-Identifier: Apache-2.0
#include "libclient/listeners.hpp"

#include <cerrno>

namespace chiru::client {

Result<shm::BindReply, int> Listeners::bind(const Endpoint& local, std::uint32_t bind_flags) {
    const std::lock_guard lock(mutex_);
    Result<shm::BindReply, int> reply = session_->bind(local, bind_flags);
    if (!reply) return reply;
    // With kBindReusePort the daemon may name a listener that we hold already.
    Shared& shared = shared_[static_cast<std::uint32_t>(reply->listener)];
    shared.reply = *reply;
    ++shared.holders;
    return reply;
}

Result<shm::BindReply, int> Listeners::join(shm::ListenerId id, const shm::ListenerToken& token) {
    const std::lock_guard lock(mutex_);
    const auto found = shared_.find(static_cast<std::uint32_t>(id));
    if (found != shared_.end()) {
        if (found->second.reply.token != token) return std::unexpected(EACCES);
        ++found->second.holders;
        return found->second.reply;
    }
    Result<shm::BindReply, int> reply = session_->adopt(id, token);
    if (reply) shared_[static_cast<std::uint32_t>(id)] = {.reply = *reply, .holders = 1};
    return reply;
}

void Listeners::leave(shm::ListenerId id) {
    const std::lock_guard lock(mutex_);
    const auto found = shared_.find(static_cast<std::uint32_t>(id));
    if (found == shared_.end() || --found->second.holders != 0) return;
    shared_.erase(found);
    static_cast<void>(session_->unbind(id));  // a session that is lost has given it back already
}

}  // namespace chiru::client
