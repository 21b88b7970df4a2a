// SPDX-License-Identifier: Apache-2.0
//
// Who owns which address and port: bind, listen, and what becomes of them when sessions come and
// go. Pure bookkeeping; what the shards must be told is returned as orders.
//
// The rules are those of POSIX as Linux has them:
//   - two names conflict if their ports are equal and an address is in both: the same one, or a
//     wildcard and anything it covers. "::" covers IPv4 as well, unless kBindV6Only is given;
//   - kBindReusePort on both, by the same user, lifts the conflict;
//   - kBindReuseAddress on both lifts it while none of them listens.
// Deviation: a port whose only traces are connections in TIME-WAIT can always be bound.
//
// A listener may have several holders: processes that inherited it (adopt), or that bound the same
// name with kBindReusePort. They share one listener, and each gets connections as it asks for them.
// It ends with its last holder. A session holds a listener once, however often it binds or adopts
// it; how many of its sockets stand behind that, it counts itself.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "daemon/dataplane/command.hpp"
#include "shm/control.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <unordered_map>
#include <vector>

namespace chiru::daemon {

/// What every shard must be told, in this order.
using Order = decltype(Command::what);
using Orders = std::vector<Order>;

/// Does a socket bound to `wide` take what is sent to `narrow` as well?
bool covers(const IpAddress& wide, std::uint32_t flags, const IpAddress& narrow);

class Listeners {
public:
    struct Rules {
        std::uint16_t first_port = 32'768;  ///< chosen for port 0; both ends included
        std::uint16_t last_port = 60'999;
        std::uint16_t first_unprivileged_port = 1024;  ///< those below are for root
        std::uint32_t max_per_session = 1024;
        std::uint32_t max_listeners = 4096;  ///< in all
    };
    /// `is_ours`: may this address, which is not a wildcard, be bound? `random` draws 64 bits.
    Listeners(const Rules& rules, std::function<bool(const IpAddress&)> is_ours,
              std::function<std::uint64_t()> random)
        : rules_(rules), is_ours_(std::move(is_ours)), random_(std::move(random)) {}

    // Errors are errno values, as the call of that name has them.

    Result<shm::BindReply, int> bind(SessionIndex session, std::uint32_t uid,
                                     const shm::BindRequest& request);
    Result<Orders, int> listen(SessionIndex session, const shm::ListenRequest& request);

    struct Adopted {
        shm::BindReply reply;
        Orders orders;
    };
    Result<Adopted, int> adopt(SessionIndex session, std::uint32_t uid,
                               const shm::AdoptRequest& request);
    Result<Orders, int> unbind(SessionIndex session, shm::ListenerId listener);
    /// Unbinds all that the session holds.
    Orders end_session(SessionIndex session);

    /// The lowest port that this user may choose.
    std::uint16_t first_port_for(std::uint32_t uid) const {
        return uid == 0 ? std::uint16_t{0} : rules_.first_unprivileged_port;
    }
    std::uint32_t held_by(SessionIndex session) const;
    std::size_t size() const { return listeners_.size(); }

private:
    struct Holder {
        SessionIndex session = 0;
        bool listening = false;
    };
    struct Listener {
        shm::ListenerId id{};
        Endpoint local;
        std::uint32_t flags = 0;
        std::uint32_t uid = 0;
        std::uint32_t backlog = 0;
        shm::ListenerToken token{};
        std::vector<Holder> holders;

        bool listening() const;
        Holder* holder(SessionIndex session);
        Holder& hold(SessionIndex session);
        shm::BindReply reply() const { return {.listener = id, .endpoint = local, .token = token}; }
    };

    Listener* find(shm::ListenerId id);
    Listener* find_held(SessionIndex session, shm::ListenerId id);
    /// May `candidate` be bound (or, with `to_listen`, start listening) beside what is there?
    bool conflicts(const Listener& candidate, bool to_listen) const;
    Result<std::uint16_t, int> choose_port(Listener candidate) const;
    void leave(Listener& listener, SessionIndex session, Orders& orders);
    void forget(shm::ListenerId id);

    Rules rules_;
    std::function<bool(const IpAddress&)> is_ours_;
    std::function<std::uint64_t()> random_;
    std::map<shm::ListenerId, Listener> listeners_;
    std::unordered_map<std::uint16_t, std::vector<shm::ListenerId>> by_port_;
    std::uint32_t last_id_ = 0;
};

}  // namespace chiru::daemon
