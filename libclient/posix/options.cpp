// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/options.hpp"

#include "libclient/posix/wait.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string_view>

#include <netinet/in.h>
#include <netinet/tcp.h>

namespace chiru::posix {

namespace {

using shm::ConnectionOption;

/// An integer-valued option. `option` 0: it means nothing to the stack and is only kept.
struct Row {
    OptionRow row;
    int level;
    int name;
    ConnectionOption option;
    int initial;
    int lowest;
    int highest;
    bool is_flag;
};

constexpr Row flag(OptionRow row, int level, int name, ConnectionOption option, int initial = 0) {
    return {row, level, name, option, initial, 0, 0, true};
}
constexpr Row number(OptionRow row, int level, int name, ConnectionOption option, int initial,
                     int lowest, int highest) {
    return {row, level, name, option, initial, lowest, highest, false};
}

constexpr ConnectionOption kKept{};
constexpr int kMaxBuffer = 1 << 30;
constexpr int kKernelReceiveBuffer = 131'072;  // what Linux answers by default
constexpr int kKernelSendBuffer = 16'384;

using R = OptionRow;
using C = ConnectionOption;
constexpr Row kRows[] = {
    flag(R::NoDelay, IPPROTO_TCP, TCP_NODELAY, C::NoDelay),
    flag(R::Cork, IPPROTO_TCP, TCP_CORK, C::Cork),
    flag(R::KeepAlive, SOL_SOCKET, SO_KEEPALIVE, C::KeepAlive),
    number(R::KeepIdle, IPPROTO_TCP, TCP_KEEPIDLE, C::KeepIdle, 7200, 1, 32'767),
    number(R::KeepInterval, IPPROTO_TCP, TCP_KEEPINTVL, C::KeepInterval, 75, 1, 32'767),
    number(R::KeepCount, IPPROTO_TCP, TCP_KEEPCNT, C::KeepCount, 9, 1, 127),
    number(R::UserTimeout, IPPROTO_TCP, TCP_USER_TIMEOUT, C::UserTimeout, 0, 0, 0x7fff'ffff),
    flag(R::QuickAck, IPPROTO_TCP, TCP_QUICKACK, C::QuickAck, 1),
    number(R::ReceiveBuffer, SOL_SOCKET, SO_RCVBUF, C::ReceiveBuffer, kKernelReceiveBuffer, 0,
           kMaxBuffer),
    number(R::SendBuffer, SOL_SOCKET, SO_SNDBUF, C::SendBuffer, kKernelSendBuffer, 0, kMaxBuffer),
    number(R::MaxSegment, IPPROTO_TCP, TCP_MAXSEG, C::MaxSegment, 536, 88, 32'767),
    number(R::TypeOfService, IPPROTO_IP, IP_TOS, C::TypeOfService, 0, 0, 255),
    number(R::TrafficClass, IPPROTO_IPV6, IPV6_TCLASS, C::TypeOfService, 0, 0, 255),
    number(R::TimeToLive, IPPROTO_IP, IP_TTL, C::TimeToLive, 64, 1, 255),
    number(R::HopLimit, IPPROTO_IPV6, IPV6_UNICAST_HOPS, C::TimeToLive, 64, 1, 255),
    flag(R::ReuseAddress, SOL_SOCKET, SO_REUSEADDR, kKept),
    flag(R::ReusePort, SOL_SOCKET, SO_REUSEPORT, kKept),
    flag(R::V6Only, IPPROTO_IPV6, IPV6_V6ONLY, kKept),
    flag(R::OobInline, SOL_SOCKET, SO_OOBINLINE, kKept),  // as it always is
    number(R::ReceiveLowWater, SOL_SOCKET, SO_RCVLOWAT, kKept, 1, INT_MIN, INT_MAX),
    number(R::DeferAccept, IPPROTO_TCP, TCP_DEFER_ACCEPT, kKept, 0, INT_MIN, INT_MAX),
    number(R::FastOpen, IPPROTO_TCP, TCP_FASTOPEN, kKept, 0, 0, INT_MAX),
    number(R::FastOpenConnect, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, kKept, 0, 0, 1),
    // The kernel takes every number, as an unsigned one.
    number(R::UnsentLowWater, IPPROTO_TCP, TCP_NOTSENT_LOWAT, C::UnsentLowWater, 0, INT_MIN,
           INT_MAX),
    // TCP always looks for the path's MTU and never sends without DF: other wishes are refused.
    number(R::MtuDiscover, IPPROTO_IP, IP_MTU_DISCOVER, kKept, IP_PMTUDISC_WANT,
           IP_PMTUDISC_WANT, IP_PMTUDISC_DO),
    number(R::MtuDiscoverV6, IPPROTO_IPV6, IPV6_MTU_DISCOVER, kKept, IPV6_PMTUDISC_WANT,
           IPV6_PMTUDISC_WANT, IPV6_PMTUDISC_DO),
};
static_assert(std::size(kRows) == static_cast<std::size_t>(OptionRow::Count));

const Row* find_row(int level, int name) {
    const auto* row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& each) {
        return each.level == level && each.name == name;
    });
    return row == std::end(kRows) ? nullptr : row;
}

constexpr std::size_t place(OptionRow row) { return static_cast<std::size_t>(row); }
constexpr int kLeastReceiveBuffer = 2304 / 2;  // Linux's least, of which it answers twice
constexpr int kLeastSendBuffer = 4608 / 2;

/// Linux counts by repeated SYN-ACKs: 1, 3, 7, ... seconds.
int round_deferral(int seconds) {
    int rounded = 0;
    while (rounded < seconds && rounded < 127) rounded = 2 * rounded + 1;
    return rounded;
}

constexpr bool is_buffer(OptionRow row) { return row == R::ReceiveBuffer || row == R::SendBuffer; }

/// Options of IPv4 may also be a byte (Linux, ip_sockglue.c).
bool read_number(const Row& row, const void* value, socklen_t length, int& number) {
    std::uint8_t byte = 0;
    if (length >= sizeof number) {
        std::memcpy(&number, value, sizeof number);
    } else if (row.level == IPPROTO_IP && length >= sizeof byte) {
        std::memcpy(&byte, value, sizeof byte);
        number = byte;
    } else {
        return false;
    }
    return true;
}

/// What Linux makes of a number before it looks whether it is one that the option may have.
int as_linux_takes_it(const Row& row, int number) {
    constexpr int kEcnBits = 3;  // TCP's own, whatever the program says
    if (row.is_flag) return number != 0 ? 1 : 0;
    switch (row.row) {
        case R::ReceiveBuffer: return std::clamp(number, kLeastReceiveBuffer, row.highest);
        case R::SendBuffer: return std::clamp(number, kLeastSendBuffer, row.highest);
        case R::ReceiveLowWater: return number < 0 ? INT_MAX : std::max(number, 1);
        case R::DeferAccept: return round_deferral(number);
        case R::TimeToLive:
        case R::HopLimit: return number == -1 ? row.initial : number;
        case R::TypeOfService: return number & 0xff & ~kEcnBits;
        case R::TrafficClass:
            return number == -1 ? 0 : number < 0 || number > 0xff ? number : number & ~kEcnBits;
        default: return number;
    }
}

}  // namespace

int store_option(const void* value, std::size_t bytes, void* room, socklen_t* length) {
    if (length == nullptr || (room == nullptr && *length != 0)) return -EFAULT;
    const std::size_t fits = std::min<std::size_t>(*length, bytes);
    if (fits != 0) std::memcpy(room, value, fits);
    *length = static_cast<socklen_t>(fits);
    return 0;
}

int store_congestion(std::uint8_t algorithm, void* value, socklen_t* length) {
    char text[16] = {};  // TCP_CA_NAME_MAX
    if (algorithm < shm::kCongestionNames.size())
        shm::kCongestionNames[algorithm].copy(text, sizeof text - 1);
    return store_option(text, sizeof text, value, length);
}

Options::Options() {
    for (const Row& row : kRows) values_[place(row.row)] = row.initial;
}

int Options::set(client::Channel* channel, client::Socket* socket, int level, int name,
                 const void* value, socklen_t length) {
    if (value == nullptr) return -EFAULT;
    if (level == SOL_SOCKET && name == SO_RCVTIMEO)
        return set_timeout(receive_timeout_, value, length);
    if (level == SOL_SOCKET && name == SO_SNDTIMEO)
        return set_timeout(send_timeout_, value, length);
    if (level == SOL_SOCKET && name == SO_LINGER)
        return set_linger(channel, socket, value, length);
    if (level == SOL_SOCKET && name == SO_MAX_PACING_RATE)
        return set_max_pacing(channel, socket, value, length);
    if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
        const int error = set_congestion(value, length);
        if (error == 0 && socket != nullptr) apply(*channel, *socket);
        return error;
    }
    const Row* row = find_row(level, name);
    if (row == nullptr) return -ENOPROTOOPT;
    int number = 0;
    if (!read_number(*row, value, length, number)) return -EINVAL;
    number = as_linux_takes_it(*row, number);
    if (!row->is_flag && (number < row->lowest || number > row->highest)) return -EINVAL;
    const bool opens = row->row == R::FastOpen || row->row == R::FastOpenConnect;
    if (opens && socket != nullptr && socket->state != client::SocketState::Listening &&
        socket->state != client::SocketState::Open)
        return -EINVAL;  // too late
    if (socket != nullptr && row->option != kKept) {
        const auto done = channel->set_option(*socket, row->option,
                                              static_cast<std::uint32_t>(number));
        if (!done) return -done.error();
    }
    // Linux answers twice of what was asked for, for its own bookkeeping; programs expect it.
    values_[place(row->row)] = is_buffer(row->row) ? 2 * number : number;
    set_ |= 1U << place(row->row);
    return 0;
}

void Options::remember(int level, int name, const void* value, socklen_t length) {
    static_cast<void>(set(nullptr, nullptr, level, name, value, length));
}

void Options::apply(client::Channel& channel, client::Socket& socket) const {
    for (const Row& row : kRows) {
        if (row.option == kKept || (set_ & (1U << place(row.row))) == 0) continue;
        const int number = values_[place(row.row)] / (is_buffer(row.row) ? 2 : 1);
        static_cast<void>(channel.set_option(socket, row.option,
                                             static_cast<std::uint32_t>(number)));
    }
    if (congestion_set_)
        static_cast<void>(
            channel.set_option(socket, ConnectionOption::CongestionControl, congestion_));
    if (max_pacing_ != kNoPacing)
        static_cast<void>(
            channel.set_option(socket, ConnectionOption::MaxPacingRate,
                               std::max<std::uint64_t>(max_pacing_, 1)));
    if (resets_on_close())
        static_cast<void>(channel.set_option(socket, ConnectionOption::LingerZero, 1));
}

/// The stack hears of a time of zero: then the end of the process resets as well.
int Options::set_linger(client::Channel* channel, client::Socket* socket, const void* value,
                        socklen_t length) {
    if (length < sizeof linger_) return -EINVAL;
    std::memcpy(&linger_, value, sizeof linger_);
    if (socket != nullptr)
        static_cast<void>(channel->set_option(*socket, ConnectionOption::LingerZero,
                                              resets_on_close() ? 1 : 0));
    return 0;
}

int Options::get(int level, int name, void* value, socklen_t* length) const {
    if (level == SOL_SOCKET && name == SO_LINGER)
        return store_option(&linger_, sizeof linger_, value, length);
    if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO)) {
        const Micros timeout = name == SO_RCVTIMEO ? receive_timeout_ : send_timeout_;
        const timeval time{.tv_sec = timeout.count() / 1'000'000,
                           .tv_usec = timeout.count() % 1'000'000};
        return store_option(&time, sizeof time, value, length);
    }
    if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
        return store_congestion(congestion_, value, length);
    }
    if (level == SOL_SOCKET && name == SO_MAX_PACING_RATE) {
        if (length != nullptr && *length >= sizeof max_pacing_)
            return store_option(&max_pacing_, sizeof max_pacing_, value, length);
        const auto rate =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(max_pacing_, UINT32_MAX));
        return store_option(&rate, sizeof rate, value, length);
    }
    const Row* row = find_row(level, name);
    if (row == nullptr) return -ENOPROTOOPT;
    return store_option(&values_[place(row->row)], sizeof(int), value, length);
}

int Options::set_timeout(Micros& timeout, const void* value, socklen_t length) {
    timeval time{};
    if (length < sizeof time) return -EINVAL;
    std::memcpy(&time, value, sizeof time);
    if (time.tv_usec < 0 || time.tv_usec >= 1'000'000) return -EDOM;
    // A negative time was once "for ever" and Linux keeps it as "at once"; a microsecond is.
    if (time.tv_sec < 0) timeout = Micros(1);
    else if (time.tv_sec > kFarSeconds) timeout = Micros::zero();  // for ever
    else timeout = Micros(time.tv_sec * 1'000'000 + time.tv_usec);
    return 0;
}

/// Of 32 or 64 bits, as Linux takes it; all ones: no bound. A rate of 0 would never send.
int Options::set_max_pacing(client::Channel* channel, client::Socket* socket, const void* value,
                            socklen_t length) {
    std::uint32_t narrow = 0;
    std::uint64_t rate = 0;
    if (length >= sizeof rate) {
        std::memcpy(&rate, value, sizeof rate);
    } else {
        if (length < sizeof narrow) return -EINVAL;
        std::memcpy(&narrow, value, sizeof narrow);
        rate = narrow == UINT32_MAX ? kNoPacing : narrow;
    }
    if (socket != nullptr) {
        const std::uint64_t told = rate == kNoPacing ? 0 : std::max<std::uint64_t>(rate, 1);
        if (const auto done = channel->set_option(*socket, ConnectionOption::MaxPacingRate, told);
            !done)
            return -done.error();
    }
    max_pacing_ = rate;
    return 0;
}

int Options::set_congestion(const void* value, socklen_t length) {
    const auto* text = static_cast<const char*>(value);
    const std::string_view name(text, strnlen(text, length));
    const auto* known = std::find(std::begin(shm::kCongestionNames),
                                  std::end(shm::kCongestionNames), name);
    if (known == std::end(shm::kCongestionNames)) return -ENOENT;
    congestion_ = static_cast<std::uint8_t>(known - std::begin(shm::kCongestionNames));
    congestion_set_ = true;
    return 0;
}

}  // namespace chiru::posix
