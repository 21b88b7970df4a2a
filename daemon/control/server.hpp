// SPDX-License-Identifier: Apache-2.0
//
// The control thread: serves the control socket, owns sessions, listeners and the directory, tells
// the shards, and watches over them. It sleeps in one epoll_wait and never blocks elsewhere: what
// needs the shards is answered when they have reported (Pending), and a client that does not read
// its answers is dropped.
#pragma once

#include "daemon/config/config.hpp"
#include "daemon/control/control_socket.hpp"
#include "daemon/control/directory_page.hpp"
#include "daemon/control/pending.hpp"
#include "daemon/dataplane/plane.hpp"
#include "daemon/session/datagrams.hpp"
#include "daemon/session/listeners.hpp"
#include "daemon/session/session.hpp"
#include "daemon/session/slots.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace chiru::daemon {

/// The answer to `request`, its body still to be filled in.
shm::Message answer_to(const shm::Message& request);

class Server {
public:
    /// `signals` is a signalfd. All must outlive the server.
    Server(const Config& config, DataPlane& plane, DirectoryPage& page, ControlSocket& socket,
           int signals);
    ~Server();  ///< stops the plane, which uses the clients' memory
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    /// Serves, with a plane that has started, until SIGTERM or SIGINT. The error is a sentence for
    /// the operator.
    Result<void, std::string> run();

private:
    using Then = std::function<void(Session&, const Report& last)>;

    // server.cpp: the loop, and sessions' beginnings and ends
    Result<void, std::string> watch_sources();
    bool watch(int fd, std::uint32_t events, std::uint64_t source);
    void handle(std::uint64_t source, std::uint32_t events);
    void accept_visitors();
    void turn_away(int error);
    void read_requests(Session& session);
    void hear_farewell(Session& session);
    void set_busy(Session& session, bool busy);
    void end(Session& session, const std::string& why);
    void gone(std::uint64_t number);
    void take_signals();
    void take_reports();
    void share(const CookieLearnt& news, std::uint32_t from);
    void spread(const PathMtuLearnt& learnt, std::uint32_t from);
    void tick();
    void watch_shards();

    // requests.cpp, datagram_requests.cpp: one function for each
    void answer(Session& session, const shm::Parcel& request);
    void attach(Session& session, const shm::Message& request);
    void observe(Session& session, const shm::Message& request);
    void create_channel(Session& session, const shm::Message& request);
    void destroy_channel(Session& session, const shm::Message& request);
    void bind(Session& session, const shm::Message& request);
    void listen(Session& session, const shm::Message& request);
    void adopt(Session& session, const shm::Message& request);
    void unbind(Session& session, const shm::Message& request);
    void connection_info(Session& session, const shm::Message& request);
    void open_datagram(Session& session, const shm::Message& request);
    void connect_datagram(Session& session, const shm::Message& request);
    void close_datagram(Session& session, const shm::Message& request);
    void membership(Session& session, const shm::Message& request);
    void join(Session& session, const shm::Message& request);
    void reply(Session& session, const shm::Message& message, const std::vector<int>& fds = {});
    void refuse(Session& session, const shm::Message& request, int error);
    void reply_attached(Session& session, const shm::Message& request);
    /// A tag for orders. `then` runs when so many reports have answered them, if the session still
    /// lives. No other request of it is read until then.
    std::uint64_t expect(Session& session, std::size_t answers, Then then);
    /// Gives the orders to every shard, and the answer when all have carried them out.
    void order(Session& session, const Orders& orders, const shm::Message& answer);
    void publish(const Session& session);
    bool is_operator(const Session& session) const;
    bool may_attach(const Session& session) const;
    /// Sessions of a user, or those of its connections that are none.
    std::size_t count_of_user(std::uint32_t uid, bool attached) const;

    const Config& config_;
    DataPlane& plane_;
    DirectoryPage& page_;
    ControlSocket& socket_;
    int signals_;
    const std::uint32_t daemon_uid_;
    const std::optional<gid_t> operators_;  ///< control.group, asked for once: NSS may take long
    shm::UniqueFd epoll_;
    shm::UniqueFd timer_;
    shm::UniqueFd spare_;  ///< closed to accept, and turn away, when descriptors run out
    bool stopping_ = false;
    std::uint64_t last_number_ = 0;
    std::unordered_map<std::uint64_t, std::unique_ptr<Session>> sessions_;
    std::vector<std::uint64_t> dead_;  ///< to be erased at the end of the turn
    Slots session_slots_;
    Slots channel_slots_;
    std::array<std::uint64_t, shm::kMaxSessions> number_of_{};  ///< by SessionIndex
    Listeners listeners_;
    Datagrams datagrams_;
    Pending pending_;
    std::array<bool, shm::kMaxShards> looked_stuck_{};  ///< at the last look
    std::array<bool, shm::kMaxShards> stuck_{};  ///< told so, not yet recovered
};

}  // namespace chiru::daemon
