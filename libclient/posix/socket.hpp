// SPDX-License-Identifier: Apache-2.0
//
// A TCP socket of the program, as the shim sees it; UDP's (datagram.hpp) is made of it.
//
// Every one is born in the kernel and stays there until bind(), connect() or listen() shows an
// address that is chiru's. From then on its descriptor, still a real one, only holds the number.
//
//   Fresh ---- kernel's address ----> forgotten here; the kernel's alone
//     |------- bind to ours --------> Bound ---+--- listen ---> Listening
//     |------- listen on any -------> Listening, in both stacks
//     |------- connect to ours -----> Live <---+
//   a fork turns Listening into Inherited in the child, and Live into Orphan
//
// Options are set on the kernel's socket as well as long as there is one, which also checks them.
#pragma once

#include "base/address.hpp"
#include "libclient/channel.hpp"
#include "libclient/posix/epoll.hpp"
#include "libclient/posix/fd_table.hpp"
#include "libclient/posix/list.hpp"
#include "libclient/posix/options.hpp"
#include "libclient/posix/process.hpp"
#include "shm/control.hpp"

#include <cstdint>
#include <memory>

#include <sys/socket.h>

namespace chiru::posix {

enum class Phase : std::uint8_t {
    Fresh,      ///< not decided; the kernel answers every call
    Bound,      ///< a name of chiru's is reserved
    Listening,  ///< in chiru, and perhaps in the kernel (both_)
    Live,       ///< connecting, connected or over
    Inherited,  ///< a listener of the parent's, not yet adopted
    Orphan,     ///< a connection of the parent's: out of reach
};

class DatagramSocket;

class Socket : public Object {
public:
    Socket(int family, bool nonblocking) : Object(Kind::Socket), family_(family) {
        nonblocking_ = nonblocking;
    }
    void last_descriptor_closed() override;

    Phase phase() const { return phase_; }
    int family() const { return family_; }
    bool nonblocking() const { return nonblocking_; }
    void set_nonblocking(int fd, bool nonblocking);
    Options& options() { return options_; }
    /// The kernel's socket takes part: fresh, or listening in both stacks.
    bool in_kernel() const { return phase_ == Phase::Fresh || both_; }
    client::Socket* chiru() { return chiru_; }
    client::Channel& channel() { return *channel_; }

    // The calls; 0 (or a count, or a descriptor) or a negative errno value.

    virtual int bind(int fd, const sockaddr* address, socklen_t length);
    virtual int listen(int fd, int backlog);
    virtual int connect(Guard& guard, int fd, const sockaddr* address, socklen_t length);
    /// What MSG_FASTOPEN does before it sends: 0 once there is a connection, or a SYN that waits
    /// for the text that it may carry.
    int open_fast(Guard& guard, int fd, const sockaddr* address, socklen_t length, bool waits);
    virtual int accept(Guard& guard, int fd, sockaddr* address, socklen_t* length, int flags);
    virtual int shutdown(int how);
    /// An option was set that a listener's daemon must hear of.
    void option_changed();
    virtual int name(sockaddr* address, socklen_t* length) const;
    virtual int peer(sockaddr* address, socklen_t* length) const;
    /// UDP's own way to send, receive and set options; nullptr: a stream.
    virtual DatagramSocket* datagrams() { return nullptr; }
    /// Waits for what was sent to arrive, as SO_LINGER asks before the last close.
    void linger(Guard& guard);

    /// EPOLLIN and the like, as of now.
    virtual std::uint32_t readiness() const;
    /// Something of client::Readiness came.
    void edges(std::uint8_t edges);
    /// A process takes connections only after it asked for some: by accept(), poll() or epoll.
    virtual void show_interest();

    void add_interest(Interest& interest) { interests_.push_back(interest); }
    void remove_interest(Interest& interest) { interests_.remove(interest); }
    Interest* find_interest(const Epoll& epoll, int fd) const;

    /// In the child of a fork.
    virtual void inherited();
    bool is_inherited() const { return phase_ == Phase::Inherited; }

    /// A call sleeps until this socket has edges.
    struct Sleeper {
        explicit Sleeper(Socket& socket) : socket_(socket), pin_(socket) { ++socket.sleepers_; }
        ~Sleeper() { --socket_.sleepers_; }
        Sleeper(const Sleeper&) = delete;
        Sleeper& operator=(const Sleeper&) = delete;

    private:
        Socket& socket_;
        Pin pin_;
    };

protected:
    void become_chirus(int fd, bool keep_in_kernel);
    /// All names of it are the kernel's from now on; `fd` is one.
    void leave_to_kernel(int fd);
    std::uint32_t bind_flags() const;
    void drop_interests();

    Phase phase_ = Phase::Fresh;
    bool nonblocking_ = false;
    bool both_ = false;          ///< bound to any address: the kernel's part counts too
    bool kernel_first_ = false;  ///< accept() and receiving alternate
    int family_;
    std::uint32_t sleepers_ = 0;
    client::Socket* chiru_ = nullptr;
    std::shared_ptr<client::Channel> channel_;
    Options options_;
    List<Interest, &Interest::in_socket> interests_;

private:
    int bind_in_chiru(const Endpoint& local);
    int listen_in_chiru(int backlog);
    int open(const std::shared_ptr<client::Channel>& channel);
    int start_connect(Guard& guard, int fd, const Endpoint& remote, bool fast);
    int connect(Guard& guard, int fd, const sockaddr* address, socklen_t length, bool by_message,
                bool waits);
    /// Its SYN waits for text?
    bool deferred() const;
    int accept_in_chiru(sockaddr* address, socklen_t* length, int flags);
    int stop_listening(int how);
    int accept_in_kernel(int fd, sockaddr* address, socklen_t* length, int flags);
    int adopt();
    void give_up_name();

    bool taking_part_ = false;   ///< asked the daemon for connections
    bool end_told_ = false;     ///< listening: accept() has told that the daemon is gone
    bool connecting_ = false;    ///< nobody was told yet how connect() ended
    std::uint32_t backlog_ = 0;
    shm::BindReply bound_{};     ///< of Bound, Listening and Inherited
};

/// The socket behind `fd`, if chiru has a word in it; nullptr: the kernel's. (Lock.)
inline Socket* socket_at(int fd) {
    Object* object = fd_table.find(fd);
    return object != nullptr && object->kind() == Object::Kind::Socket
               ? static_cast<Socket*>(object)
               : nullptr;
}
/// The same, but not a fresh one.
inline Socket* chirus_socket_at(int fd) {
    Socket* socket = socket_at(fd);
    return socket != nullptr && socket->phase() != Phase::Fresh ? socket : nullptr;
}

}  // namespace chiru::posix
