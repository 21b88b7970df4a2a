// SPDX-License-Identifier: Apache-2.0
#include "daemon/session/listeners.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace chiru::daemon {
namespace {

constexpr std::uint32_t kKnownFlags =
    shm::kBindReuseAddress | shm::kBindReusePort | shm::kBindV6Only;
constexpr std::uint32_t kMaxBacklog = 65'535;
constexpr std::uint32_t kMaxDeferS = 3600;

bool both(std::uint32_t a, std::uint32_t b, std::uint32_t flag) { return (a & b & flag) != 0; }

}  // namespace

bool covers(const IpAddress& wide, std::uint32_t flags, const IpAddress& narrow) {
    if (wide == narrow) return true;
    if (!wide.is_unspecified()) return false;
    if (wide.is_v4() == narrow.is_v4()) return true;
    return wide.is_v6() && (flags & shm::kBindV6Only) == 0;
}

bool Listeners::Listener::listening() const {
    return std::any_of(holders.begin(), holders.end(),
                       [](const Holder& holder) { return holder.listening; });
}

Listeners::Holder* Listeners::Listener::holder(SessionIndex session) {
    const auto found = std::find_if(holders.begin(), holders.end(), [&](const Holder& holder) {
        return holder.session == session;
    });
    return found == holders.end() ? nullptr : &*found;
}

Listeners::Holder& Listeners::Listener::hold(SessionIndex session) {
    Holder* known = holder(session);
    if (known == nullptr) known = &holders.emplace_back(Holder{.session = session});
    return *known;
}

Listeners::Listener* Listeners::find(shm::ListenerId id) {
    const auto found = listeners_.find(id);
    return found == listeners_.end() ? nullptr : &found->second;
}

Listeners::Listener* Listeners::find_held(SessionIndex session, shm::ListenerId id) {
    Listener* listener = find(id);
    return listener != nullptr && listener->holder(session) != nullptr ? listener : nullptr;
}

std::uint32_t Listeners::held_by(SessionIndex session) const {
    std::uint32_t count = 0;
    for (const auto& [id, listener] : listeners_)
        for (const Holder& holder : listener.holders)
            if (holder.session == session) ++count;
    return count;
}

bool Listeners::conflicts(const Listener& candidate, bool to_listen) const {
    const auto same_port = by_port_.find(candidate.local.port);
    if (same_port == by_port_.end()) return false;
    for (const shm::ListenerId id : same_port->second) {
        const Listener& other = listeners_.at(id);
        if (other.id == candidate.id) continue;
        if (!covers(other.local.address, other.flags, candidate.local.address) &&
            !covers(candidate.local.address, candidate.flags, other.local.address))
            continue;
        if (both(other.flags, candidate.flags, shm::kBindReusePort) && other.uid == candidate.uid)
            continue;
        if (to_listen && !other.listening()) continue;  // bind() allowed the two
        if (!to_listen && both(other.flags, candidate.flags, shm::kBindReuseAddress) &&
            !other.listening())
            continue;
        return true;
    }
    return false;
}

Result<std::uint16_t, int> Listeners::choose_port(Listener candidate) const {
    candidate.flags &= shm::kBindV6Only;  // a chosen port is shared with nobody
    const std::uint32_t count = rules_.last_port - rules_.first_port + 1u;
    const auto start = static_cast<std::uint32_t>(random_() % count);
    for (std::uint32_t i = 0; i < count; ++i) {
        candidate.local.port =
            static_cast<std::uint16_t>(rules_.first_port + (start + i) % count);
        if (!conflicts(candidate, false)) return candidate.local.port;
    }
    return std::unexpected(EADDRINUSE);
}

Result<shm::BindReply, int> Listeners::bind(SessionIndex session, std::uint32_t uid,
                                            const shm::BindRequest& request) {
    const IpAddress& address = request.endpoint.address;
    if ((request.flags & ~kKnownFlags) != 0) return std::unexpected(EINVAL);
    if (!address.is_unspecified() && !is_ours_(address)) return std::unexpected(EADDRNOTAVAIL);
    if (request.endpoint.port != 0 && request.endpoint.port < first_port_for(uid))
        return std::unexpected(EACCES);
    if (held_by(session) >= rules_.max_per_session || listeners_.size() >= rules_.max_listeners)
        return std::unexpected(ENOBUFS);

    Listener listener;
    listener.local = request.endpoint;
    listener.flags = request.flags;
    listener.uid = uid;
    if (listener.local.port == 0) {
        const Result<std::uint16_t, int> port = choose_port(listener);
        if (!port) return std::unexpected(port.error());
        listener.local.port = *port;
    }
    if (conflicts(listener, false)) return std::unexpected(EADDRINUSE);
    // The same name once more by kBindReusePort: one more holder of the same listener.
    for (const shm::ListenerId id : by_port_[listener.local.port]) {
        Listener& other = listeners_.at(id);
        if (other.local != listener.local || other.flags != listener.flags ||
            other.uid != uid || (listener.flags & shm::kBindReusePort) == 0)
            continue;
        other.hold(session);
        return other.reply();
    }
    do {
        listener.id = shm::ListenerId{++last_id_};
    } while (listener.id == shm::kNoListener || listeners_.contains(listener.id));
    listener.token = {random_(), random_()};
    listener.hold(session);
    by_port_[listener.local.port].push_back(listener.id);
    return listeners_.emplace(listener.id, std::move(listener)).first->second.reply();
}

Result<Orders, int> Listeners::listen(SessionIndex session, const shm::ListenRequest& request) {
    Listener* listener = find_held(session, request.listener);
    if (listener == nullptr) return std::unexpected(EBADF);
    if (conflicts(*listener, true)) return std::unexpected(EADDRINUSE);
    const std::uint32_t asked = std::clamp(request.backlog, 1u, kMaxBacklog);
    Orders orders;
    if (!listener->listening()) {
        listener->backlog = asked;
    } else {  // of several holders, the most generous decides
        const bool alone = listener->holders.size() == 1;
        listener->backlog = alone ? asked : std::max(asked, listener->backlog);
    }
    orders.push_back(Listen{.listener = listener->id,
                            .local = listener->local,
                            .bind_flags = listener->flags,
                            .terms = {.backlog = listener->backlog,
                                      .defer_s = std::min(request.defer_s, kMaxDeferS),
                                      .max_segment = request.max_segment,
                                      .fast_open = request.fast_open}});
    Holder& holder = *listener->holder(session);
    if (!std::exchange(holder.listening, true))
        orders.push_back(ShareListener{.listener = listener->id, .session = session});
    return orders;
}

Result<Listeners::Adopted, int> Listeners::adopt(SessionIndex session, std::uint32_t uid,
                                                 const shm::AdoptRequest& request) {
    Listener* listener = find(request.listener);
    // A wrong token and another user's listener look alike: nothing to be learnt by guessing.
    if (listener == nullptr || listener->uid != uid || listener->token != request.token)
        return std::unexpected(ENOENT);
    if (held_by(session) >= rules_.max_per_session) return std::unexpected(ENOBUFS);
    Adopted adopted{.reply = listener->reply(), .orders = {}};
    const bool listening = listener->listening();
    Holder& holder = listener->hold(session);
    if (listening && !std::exchange(holder.listening, true))
        adopted.orders.push_back(ShareListener{.listener = listener->id, .session = session});
    return adopted;
}

void Listeners::leave(Listener& listener, SessionIndex session, Orders& orders) {
    const bool was_listening = listener.holder(session)->listening;
    std::erase_if(listener.holders,
                  [&](const Holder& holder) { return holder.session == session; });
    if (was_listening) {
        if (listener.listening())
            orders.push_back(LeaveListener{.listener = listener.id, .session = session});
        else
            orders.push_back(Unlisten{.listener = listener.id});
    }
    if (listener.holders.empty()) forget(listener.id);
}

void Listeners::forget(shm::ListenerId id) {
    const auto same_port = by_port_.find(listeners_.at(id).local.port);
    std::erase(same_port->second, id);
    if (same_port->second.empty()) by_port_.erase(same_port);
    listeners_.erase(id);
}

Result<Orders, int> Listeners::unbind(SessionIndex session, shm::ListenerId id) {
    Listener* listener = find_held(session, id);
    if (listener == nullptr) return std::unexpected(EBADF);
    Orders orders;
    leave(*listener, session, orders);
    return orders;
}

Orders Listeners::end_session(SessionIndex session) {
    std::vector<shm::ListenerId> held;
    for (auto& [id, listener] : listeners_)
        if (listener.holder(session) != nullptr) held.push_back(id);
    Orders orders;
    for (const shm::ListenerId id : held) leave(*find(id), session, orders);
    return orders;
}

}  // namespace chiru::daemon
