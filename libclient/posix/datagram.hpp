// SPDX-License-Identifier: Apache-2.0
//
// A UDP socket of the program, as the shim sees it. Its descriptor is a kernel UDP socket for all
// of its life, so the kernel checks and keeps its options; chiru's part comes beside it:
//
//   Fresh --- bind to chiru's address --------------> Live, chiru's alone
//     |  |--- bind to any address, first sendto ----> Live, in both stacks: receiving merges them,
//     |  |                                            the destination decides where a datagram goes
//     |  '--- connect to what chiru reaches --------> Live, chiru's alone while it is connected
//     '------ connect, bind to the kernel's --------> stays the kernel's
//   a fork turns Live into the kernel's part alone, or into Orphan where there is none
#pragma once

#include "libclient/posix/socket.hpp"

#include <cstdint>
#include <span>
#include <vector>

#include <sys/uio.h>

namespace chiru::posix {

/// What was set that concerns chiru's part; the kernel has checked it.
struct DatagramOptions {
    int tos = 0;
    int ttl = 0;  ///< 0: the default
    int group_ttl = 1;
    bool group_loop = true;
    std::uint16_t group_interface = 0;  ///< of chiru's, from 1
    IpAddress group_source;
    std::uint16_t segment_bytes = 0;
    std::uint16_t fragmenting = 0;  ///< shm::SubmissionFlag bits
    bool broadcast = false;
    bool want_info = false;  ///< IP_PKTINFO, IPV6_RECVPKTINFO
    bool want_ttl = false;
    bool want_tos = false;
    std::uint32_t receive_buffer = 0;
};

class DatagramSocket final : public Socket {
public:
    using Socket::Socket;

    DatagramSocket* datagrams() override { return this; }
    void last_descriptor_closed() override;

    int bind(int fd, const sockaddr* address, socklen_t length) override;
    int listen(int, int) override { return -EOPNOTSUPP; }
    int connect(Guard& guard, int fd, const sockaddr* address, socklen_t length) override;
    int accept(Guard&, int, sockaddr*, socklen_t*, int) override { return -EOPNOTSUPP; }
    int shutdown(int how) override;
    int name(sockaddr* address, socklen_t* length) const override;
    int peer(sockaddr* address, socklen_t* length) const override;
    std::uint32_t readiness() const override;
    void show_interest() override {}
    void inherited() override;

    // kToKernel: the kernel's part does it.

    ssize_t receive(Guard& guard, int fd, msghdr& message, int flags);
    ssize_t send(Guard& guard, int fd, const msghdr& message, int flags);
    int set_option(int fd, int level, int name, const void* value, socklen_t length);
    int get_option(int fd, int level, int name, void* value, socklen_t* length);
    /// Bytes of the next datagram; nothing: ask the kernel.
    int next_bytes(int fd) const;

private:
    struct Membership {
        IpAddress group;
        std::uint16_t interface = 0;
        friend bool operator==(const Membership&, const Membership&) = default;
    };

    bool connected() const;
    /// Opens chiru's part, bound to `local`: 0 or a negative errno value.
    int open(const Endpoint& local);
    /// The same with port 0, or the kernel's; both stacks then have one port.
    int open_in_both(int fd, const Endpoint& local);
    int open_for_sending(int fd, bool keep_in_kernel);
    void close_chirus_part();
    int connect_to_nobody(int fd);
    int connect_in_chiru(Guard& guard, int fd, const Endpoint& remote);
    Stack stack_of(const IpAddress& remote);
    ssize_t take(msghdr& message, int flags);
    void store_control(msghdr& message, const client::RxDatagram& datagram) const;
    int read_control(const msghdr& message, client::DatagramTarget& target) const;
    int target_of(const Endpoint& remote, const msghdr& message, client::DatagramTarget& target);
    void remember(int fd, int level, int name, const void* value, socklen_t length);
    void remember_ipv6(int name, int number);
    void remember_group_interface(int name, const void* value, socklen_t length);
    int set_membership(int fd, int level, int name, const void* value, socklen_t length);
    int change_membership(const Membership& membership, bool join);
    void tell_options();

    DatagramOptions datagram_options_;
    std::vector<Membership> memberships_;
    IpAddress family_any() const { return family_ == AF_INET ? IpAddress::v4(0) : IpAddress(); }
    bool asked_ = false;       ///< whether there is a daemon
    bool was_both_ = false;    ///< before it was connected in chiru
    bool receive_done_ = false;
    bool send_done_ = false;
};

}  // namespace chiru::posix
