// SPDX-License-Identifier: Apache-2.0
//
// One registration with the daemon: the control socket, the memory that came over it, and the
// requests that go over it. A process normally has one session and one channel for each thread
// that does I/O.
//
// The control socket is the life line. When it breaks, the daemon is gone: the session is lost for
// good, its channels fail every socket with ECONNRESET, and a new session must be attached.
//
// Thread-safe: requests take turns under a mutex. They block for the daemon's answer, some tens of
// microseconds, so nothing on the path of data makes one.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "libclient/tx_arena.hpp"
#include "shm/control.hpp"
#include "shm/directory.hpp"
#include "shm/region.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace chiru::client {

/// What CreateChannel answers.
struct ChannelParts {
    std::uint32_t channel = 0;
    std::uint32_t shard_count = 0;
    shm::Region region;
    shm::UniqueFd client_doorbell;
    std::vector<shm::UniqueFd> shard_doorbells;
};

class Session {
public:
    /// Attaches to the daemon at `socket_path` (empty: $CHIRU_SOCKET, else the default).
    /// `program` is for people. Errors are connect(2)'s for a daemon that is not there (ENOENT,
    /// ECONNREFUSED), EACCES or EPERM if it refuses, EPROTO if it speaks another version.
    static Result<std::shared_ptr<Session>, int> attach(const std::string& socket_path,
                                                        std::string_view program);
    /// The same over a socket that is already connected.
    static Result<std::shared_ptr<Session>, int> attach(shm::UniqueFd control,
                                                        std::string_view program);

    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    const shm::AttachReply& terms() const { return terms_; }
    std::uint32_t shard_count() const { return terms_.shard_count; }
    const shm::Directory& directory() const { return *directory_; }
    /// The shared or the private receive arena; empty if there is no such arena.
    std::span<const std::byte> rx_arena(shm::ArenaId arena) const;
    TxBlocks& tx_blocks() { return *tx_blocks_; }

    // Requests. Errors are errno values; EPIPE once the session is lost.

    Result<shm::BindReply, int> bind(const Endpoint& local, std::uint32_t bind_flags);
    struct ListenTerms {
        std::uint32_t backlog = 0;
        std::uint32_t defer_s = 0;      ///< TCP_DEFER_ACCEPT
        std::uint16_t max_segment = 0;  ///< TCP_MAXSEG
        std::uint16_t fast_open = 0;    ///< TCP_FASTOPEN
    };
    Result<void, int> listen(shm::ListenerId listener, const ListenTerms& terms);
    Result<shm::BindReply, int> adopt(shm::ListenerId listener, const shm::ListenerToken& token);
    Result<void, int> unbind(shm::ListenerId listener);
    Result<shm::ConnectionInfo, int> connection_info(std::uint32_t shard,
                                                     shm::ConnectionId connection);
    Result<shm::DatagramReply, int> open_datagram(const shm::OpenDatagramRequest& wanted);
    Result<shm::DatagramReply, int> connect_datagram(const shm::ConnectDatagramRequest& wanted);
    Result<void, int> close_datagram(shm::DatagramId socket);
    Result<void, int> set_membership(const shm::MembershipRequest& wanted);
    Result<ChannelParts, int> create_channel();
    Result<void, int> destroy_channel(std::uint32_t channel);

    /// Breaks (EPOLLHUP) when the daemon is gone; never watch it for EPOLLIN, answers to requests
    /// come over it.
    int control_fd() const { return control_.get(); }
    bool lost() const { return lost_.load(std::memory_order_acquire); }
    /// Asks the kernel, without waiting, whether the daemon is still there. Returns !lost().
    bool check_alive();
    /// Ends the session from our side, for the daemon too: it wrote nonsense into a ring, or it is
    /// gone.
    void give_up();
    /// The process is about to end in order: what it leaves open is closed by the daemon, not
    /// reset. Sends one message and waits for nothing.
    void say_farewell();
    /// In the child of a fork: the session stays the parent's. Nothing more is said to the daemon,
    /// and whatever uses this copy sees a lost session.
    void disown() { lost_.store(true, std::memory_order_release); }

private:
    Session() = default;
    Result<void, int> take_memory(shm::Parcel& reply);
    Result<shm::Parcel, int> request(shm::Message& message);

    std::mutex mutex_;
    shm::UniqueFd control_;
    std::uint32_t sequence_ = 0;
    std::atomic<bool> lost_{false};
    shm::AttachReply terms_;
    shm::Region directory_region_;
    shm::Region rx_region_;
    shm::Region private_rx_region_;
    shm::Region tx_region_;
    const shm::Directory* directory_ = nullptr;
    std::unique_ptr<TxBlocks> tx_blocks_;
};

}  // namespace chiru::client
