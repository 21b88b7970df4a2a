// SPDX-License-Identifier: Apache-2.0
//
// Options and control messages of UDP sockets. The descriptor is a kernel's socket, so the kernel
// checks each option and remembers it; here is what chiru's part must know of it as well.
#include "libclient/posix/address.hpp"
#include "libclient/posix/calls.hpp"
#include "libclient/posix/datagram.hpp"
#include "libclient/posix/real.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include <netinet/in.h>
#include <netinet/udp.h>

namespace chiru::posix {

namespace {

/// The numbers that chiru's interfaces have for programs, out of the way of the kernel's.
constexpr unsigned kInterfaceBase = 0x4000'0000;

std::optional<int> number_of(const void* value, socklen_t length) {
    int number = 0;
    if (length >= sizeof number) std::memcpy(&number, value, sizeof number);
    else if (length >= 1) number = *static_cast<const unsigned char*>(value);  // as IP_* allow
    else return std::nullopt;
    return number;
}

template <class T>
std::optional<T> read_value(const void* value, socklen_t length) {
    T whole;
    if (length < sizeof whole) return std::nullopt;
    std::memcpy(&whole, value, sizeof whole);
    return whole;
}

std::uint16_t fragmenting(int discover) {
    switch (discover) {
        case IP_PMTUDISC_DONT: return shm::kMayFragment;
        case IP_PMTUDISC_DO: return shm::kNeverFragment;
        case IP_PMTUDISC_PROBE: return shm::kProbePath;
        default: return 0;
    }
}

bool is_chirus(unsigned interface) {
    return interface > kInterfaceBase && interface <= kInterfaceBase + shm::kMaxInterfaces;
}

/// Appends one control message, if there is room; else says so.
void append(msghdr& message, std::size_t room, int level, int type, const void* data,
            std::size_t bytes) {
    const std::size_t used = message.msg_controllen;
    if (room < used + CMSG_LEN(bytes)) {
        message.msg_flags |= MSG_CTRUNC;
        return;
    }
    auto* part = reinterpret_cast<cmsghdr*>(static_cast<std::byte*>(message.msg_control) + used);
    part->cmsg_level = level;
    part->cmsg_type = type;
    part->cmsg_len = CMSG_LEN(bytes);
    std::memcpy(CMSG_DATA(part), data, bytes);
    message.msg_controllen = std::min(used + CMSG_SPACE(bytes), room);
}

IpAddress address_of(const in_addr& address) { return IpAddress::v4(ntohl(address.s_addr)); }

IpAddress address_of(const in6_addr& address) {
    IpAddress::Bytes bytes;
    std::memcpy(bytes.data(), &address, bytes.size());
    return IpAddress(bytes);
}

}  // namespace

// ---- setsockopt, getsockopt ----------------------------------------------------------------

int DatagramSocket::set_option(int fd, int level, int name, const void* value,
                               socklen_t length) {
    const bool v4 = level == IPPROTO_IP, v6 = level == IPPROTO_IPV6;
    if ((v4 && (name == IP_ADD_MEMBERSHIP || name == IP_DROP_MEMBERSHIP)) ||
        (v6 && (name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP)) ||
        ((v4 || v6) && (name == MCAST_JOIN_GROUP || name == MCAST_LEAVE_GROUP)))
        return set_membership(fd, level, name, value, length);
    const auto chirus_address = [&] {
        const auto wanted = read_value<in_addr>(value, length);
        return v4 && name == IP_MULTICAST_IF && wanted &&
               Process::get().policy().interface_of(address_of(*wanted)) != 0;
    };
    const auto chirus_number = [&] {
        const auto wanted = number_of(value, length);
        return v6 && name == IPV6_MULTICAST_IF && wanted &&
               is_chirus(static_cast<unsigned>(*wanted));
    };
    if ((v4 && name == IP_MULTICAST_IF) || (v6 && name == IPV6_MULTICAST_IF))
        static_cast<void>(Process::get().attach());  // whose address it is, the daemon knows
    const bool chirus_alone = value != nullptr && (chirus_address() || chirus_number());
    if (!chirus_alone && real().setsockopt(fd, level, name, value, length) != 0) return -errno;
    remember(fd, level, name, value, length);
    return 0;
}

void DatagramSocket::remember(int fd, int level, int name, const void* value, socklen_t length) {
    if (value == nullptr) return;
    DatagramOptions& set = datagram_options_;
    const int number = number_of(value, length).value_or(0);
    if (level == SOL_SOCKET) {
        options_.remember(level, name, value, length);
        if (name == SO_BROADCAST) set.broadcast = number != 0;
        if (name == SO_RCVBUF || name == SO_RCVBUFFORCE) {
            int granted = 0;
            socklen_t bytes = sizeof granted;
            if (real().getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &granted, &bytes) != 0) return;
            set.receive_buffer = static_cast<std::uint32_t>(granted);
            tell_options();
        }
        if (name == SO_SNDBUF && chiru_ != nullptr)
            channel_->set_send_limit(*chiru_, 2 * static_cast<std::uint32_t>(number));
    } else if (level == IPPROTO_UDP) {
        if (name == UDP_SEGMENT) set.segment_bytes = static_cast<std::uint16_t>(number);
    } else if (level == IPPROTO_IPV6) {
        options_.remember(level, name, value, length);
        if (name == IPV6_MULTICAST_IF) remember_group_interface(name, value, length);
        else remember_ipv6(name, number);
    } else if (level == IPPROTO_IP) {
        switch (name) {
            case IP_TOS: set.tos = number & 0xff; break;
            case IP_TTL: set.ttl = number > 0 ? number : 0; break;
            case IP_MTU_DISCOVER: set.fragmenting = fragmenting(number); break;
            case IP_MULTICAST_TTL: set.group_ttl = number >= 0 ? number : 1; break;
            case IP_MULTICAST_LOOP: set.group_loop = number != 0; break;
            case IP_MULTICAST_IF: remember_group_interface(name, value, length); break;
            case IP_PKTINFO: set.want_info = number != 0; break;
            case IP_RECVTTL: set.want_ttl = number != 0; break;
            case IP_RECVTOS: set.want_tos = number != 0; break;
            default: return;
        }
        tell_options();
    }
}

void DatagramSocket::remember_ipv6(int name, int number) {
    DatagramOptions& set = datagram_options_;
    switch (name) {
        case IPV6_TCLASS: set.tos = number >= 0 ? number & 0xff : 0; break;
        case IPV6_UNICAST_HOPS: set.ttl = number > 0 ? number : 0; break;
        case IPV6_MTU_DISCOVER: set.fragmenting = fragmenting(number); break;
        case IPV6_DONTFRAG: set.fragmenting = number != 0 ? shm::kNeverFragment : 0; break;
        case IPV6_MULTICAST_HOPS: set.group_ttl = number >= 0 ? number : 1; break;
        case IPV6_MULTICAST_LOOP: set.group_loop = number != 0; break;
        case IPV6_RECVPKTINFO: set.want_info = number != 0; break;
        case IPV6_RECVHOPLIMIT: set.want_ttl = number != 0; break;
        case IPV6_RECVTCLASS: set.want_tos = number != 0; break;
        default: return;
    }
    tell_options();
}

void DatagramSocket::remember_group_interface(int name, const void* value, socklen_t length) {
    DatagramOptions& set = datagram_options_;
    set.group_interface = 0;
    set.group_source = {};
    if (family_ == AF_INET6 && name == IPV6_MULTICAST_IF) {
        const auto number = static_cast<unsigned>(number_of(value, length).value_or(0));
        if (is_chirus(number))
            set.group_interface = static_cast<std::uint16_t>(number - kInterfaceBase);
        return;
    }
    IpAddress address;
    if (const auto whole = read_value<ip_mreqn>(value, length)) {
        address = address_of(whole->imr_address);
    } else if (const auto alone = read_value<in_addr>(value, length)) {
        address = address_of(*alone);
    }
    set.group_interface = Process::get().policy().interface_of(address);
    if (set.group_interface != 0) set.group_source = address;
}

/// Tells chiru's part what it must know itself; the rest goes with each datagram.
void DatagramSocket::tell_options() {
    if (chiru_ == nullptr) return;
    channel_->set_datagram_option(*chiru_, shm::DatagramOption::WantDestination,
                                  datagram_options_.want_info ? 1 : 0);
    if (datagram_options_.receive_buffer != 0)
        channel_->set_datagram_option(*chiru_, shm::DatagramOption::ReceiveBuffer,
                                      datagram_options_.receive_buffer);
    channel_->flush();
}

int DatagramSocket::get_option(int fd, int level, int name, void* value, socklen_t* length) {
    if (chiru_ == nullptr || phase_ == Phase::Fresh) return kToKernel;
    int status = 0;
    if (level == SOL_SOCKET && name == SO_ERROR) {
        status = channel_->take_error(*chiru_);
        if (status == 0 && both_) return kToKernel;
    } else if ((level == IPPROTO_IP && name == IP_MTU) ||
               (level == IPPROTO_IPV6 && name == IPV6_MTU)) {
        if (!connected()) return kToKernel;
        status = chiru_->path_mtu;
    } else {
        static_cast<void>(fd);
        return kToKernel;
    }
    return store_option(&status, sizeof status, value, length);
}

// ---- groups --------------------------------------------------------------------------------

int DatagramSocket::change_membership(const Membership& membership, bool join) {
    const auto known = std::find(memberships_.begin(), memberships_.end(), membership);
    if (join && known != memberships_.end()) return -EADDRINUSE;
    if (!join && known == memberships_.end()) return -EADDRNOTAVAIL;
    if (chiru_ != nullptr) {
        const auto done = channel_->set_membership(*chiru_, membership.group,
                                                   membership.interface, join);
        if (!done) return -done.error();
    }
    if (join) memberships_.push_back(membership);
    else memberships_.erase(known);
    return 0;
}

/// On an interface of chiru's, chiru's alone; on one of the kernel's, the kernel's; on any, both.
int DatagramSocket::set_membership(int fd, int level, int name, const void* value,
                                   socklen_t length) {
    if (value == nullptr) return -EFAULT;
    Process& process = Process::get();
    const bool join = name == IP_ADD_MEMBERSHIP || name == IPV6_JOIN_GROUP ||
                      name == MCAST_JOIN_GROUP;
    Membership membership;
    bool kernels = false;
    const auto by_number = [&](unsigned number) {
        kernels = number != 0 && !is_chirus(number);
        if (is_chirus(number))
            membership.interface = static_cast<std::uint16_t>(number - kInterfaceBase);
    };
    static_cast<void>(process.attach());
    if (name == MCAST_JOIN_GROUP || name == MCAST_LEAVE_GROUP) {
        const auto wanted = read_value<group_req>(value, length);
        if (!wanted) return -EINVAL;
        const auto group = endpoint_of(reinterpret_cast<const sockaddr*>(&wanted->gr_group),
                                       sizeof wanted->gr_group,
                                       level == IPPROTO_IP ? AF_INET : AF_INET6);
        if (!group) return -group.error();
        membership.group = group->address;
        by_number(wanted->gr_interface);
    } else if (level == IPPROTO_IPV6) {
        const auto wanted = read_value<ipv6_mreq>(value, length);
        if (!wanted) return -EINVAL;
        membership.group = address_of(wanted->ipv6mr_multiaddr);
        by_number(wanted->ipv6mr_interface);
    } else {
        const auto wanted = read_value<ip_mreq>(value, length);
        if (!wanted) return -EINVAL;
        membership.group = address_of(wanted->imr_multiaddr);
        const IpAddress interface = address_of(wanted->imr_interface);
        membership.interface = process.policy().interface_of(interface);
        kernels = membership.interface == 0 && !interface.is_unspecified();
        if (const auto numbered = read_value<ip_mreqn>(value, length);
            numbered && numbered->imr_ifindex != 0)
            by_number(static_cast<unsigned>(numbered->imr_ifindex));
    }
    if (kernels || process.attach() == nullptr) return kToKernel;
    if (!membership.group.is_multicast()) return -EINVAL;
    const int done = change_membership(membership, join);
    if (membership.interface != 0) return done;
    // Any interface: the kernel takes part where it can. It has perhaps no route for groups.
    if (real().setsockopt(fd, level, name, value, length) == 0) return 0;
    return done;
}

// ---- control messages ----------------------------------------------------------------------

void DatagramSocket::store_control(msghdr& message, const client::RxDatagram& datagram) const {
    const std::size_t room = message.msg_control == nullptr ? 0 : message.msg_controllen;
    message.msg_controllen = 0;
    const DatagramOptions& set = datagram_options_;
    const unsigned interface =
        datagram.interface == 0 ? 0 : kInterfaceBase + datagram.interface;
    const int ttl = datagram.ttl, tos = datagram.tos;
    const bool v4 = family_ == AF_INET;
    if (set.want_info && datagram.has_local && v4) {
        in_pktinfo info{};
        info.ipi_ifindex = static_cast<int>(interface);
        info.ipi_addr.s_addr = htonl(datagram.local.v4_bits());
        if (!datagram.local.is_multicast()) info.ipi_spec_dst = info.ipi_addr;
        append(message, room, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else if (set.want_info && datagram.has_local) {
        in6_pktinfo info{};
        info.ipi6_ifindex = interface;
        std::memcpy(&info.ipi6_addr, datagram.local.bytes().data(), sizeof info.ipi6_addr);
        append(message, room, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
    if (set.want_ttl && ttl != 0)
        append(message, room, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TTL : IPV6_HOPLIMIT, &ttl,
               sizeof ttl);
    if (set.want_tos && v4)
        append(message, room, IPPROTO_IP, IP_TOS, &datagram.tos, sizeof datagram.tos);
    else if (set.want_tos)
        append(message, room, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos);
}

int DatagramSocket::read_control(const msghdr& message, client::DatagramTarget& target) const {
    for (cmsghdr* part = message.msg_control == nullptr ? nullptr : CMSG_FIRSTHDR(&message);
         part != nullptr; part = CMSG_NXTHDR(const_cast<msghdr*>(&message), part)) {
        const auto* data = CMSG_DATA(part);
        const auto bytes = static_cast<socklen_t>(part->cmsg_len - CMSG_LEN(0));
        const int number = bytes >= sizeof(int) ? *read_value<int>(data, bytes) : 0;
        const auto choose = [&](unsigned interface) {
            if (is_chirus(interface))
                target.interface = static_cast<std::uint16_t>(interface - kInterfaceBase);
        };
        if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
            const auto info = read_value<in_pktinfo>(data, bytes);
            if (!info) return -EINVAL;
            if (info->ipi_spec_dst.s_addr != 0) target.source = address_of(info->ipi_spec_dst);
            choose(static_cast<unsigned>(info->ipi_ifindex));
        } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
            const auto info = read_value<in6_pktinfo>(data, bytes);
            if (!info) return -EINVAL;
            target.source = address_of(info->ipi6_addr);
            choose(info->ipi6_ifindex);
        } else if ((part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TTL) ||
                   (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_HOPLIMIT)) {
            if (bytes < sizeof(int) || number < 1 || number > 255) return -EINVAL;
            target.ttl = static_cast<std::uint8_t>(number);
        } else if ((part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TOS) ||
                   (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_TCLASS)) {
            const auto tos = number_of(data, bytes);
            if (!tos || *tos < 0 || *tos > 255) return -EINVAL;
            target.tos = static_cast<std::uint8_t>(*tos);
        } else if (part->cmsg_level == IPPROTO_UDP && part->cmsg_type == UDP_SEGMENT) {
            const auto segment = read_value<std::uint16_t>(data, bytes);
            if (!segment) return -EINVAL;
            target.segment_bytes = *segment;
        } else if (part->cmsg_level != SOL_SOCKET) {
            return -EINVAL;
        }
    }
    if (!target.source.is_unspecified() && !channel_->session().lost() &&
        Process::get().policy().interface_of(target.source) == 0)
        return -EINVAL;  // as Linux: an address that is not of this host
    return 0;
}

}  // namespace chiru::posix
