// SPDX-License-Identifier: Apache-2.0
//
// Socket options: which there are, what they are now, and what chiru is told of them.
//
// One table says for each whether the stack has it, or the shim keeps it, or it is a fact. An
// option that is not in the table fails with ENOPROTOOPT, as POSIX says: it is never taken to a
// socket that does not carry the traffic.
#pragma once

#include "base/time.hpp"
#include "libclient/channel.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

#include <sys/socket.h>
#include <sys/time.h>

namespace chiru::posix {

class Socket;

/// Stores a value as getsockopt() does: cut to the room there is.
int store_option(const void* value, std::size_t bytes, void* room, socklen_t* length);
/// The name of a shm::CongestionAlgorithm, as TCP_CONGESTION tells it.
int store_congestion(std::uint8_t algorithm, void* value, socklen_t* length);

/// Rows of the table in options.cpp.
enum class OptionRow : std::uint8_t {
    NoDelay,
    Cork,
    KeepAlive,
    KeepIdle,
    KeepInterval,
    KeepCount,
    UserTimeout,
    QuickAck,
    ReceiveBuffer,
    SendBuffer,
    MaxSegment,
    TypeOfService,
    TrafficClass,
    TimeToLive,
    HopLimit,
    ReuseAddress,
    ReusePort,
    V6Only,
    OobInline,
    ReceiveLowWater,
    DeferAccept,
    FastOpen,
    FastOpenConnect,
    UnsentLowWater,
    MtuDiscover,
    MtuDiscoverV6,
    Count,
};

/// SO_MAX_PACING_RATE's word for none.
inline constexpr std::uint64_t kNoPacing = ~std::uint64_t{0};

class Options {
public:
    Options();

    /// setsockopt() for a socket of chiru's: 0 or a negative errno value. The stack hears of it
    /// at once if there is a `socket` in it.
    int set(client::Channel* channel, client::Socket* socket, int level, int name,
            const void* value, socklen_t length);
    /// What the kernel accepted while it was the kernel's; the stack hears of it from apply().
    void remember(int level, int name, const void* value, socklen_t length);
    /// Tells the stack all that was set.
    void apply(client::Channel& channel, client::Socket& socket) const;
    /// getsockopt() of what can be set; -ENOPROTOOPT if unknown.
    int get(int level, int name, void* value, socklen_t* length) const;

    Micros receive_timeout() const { return receive_timeout_; }  ///< zero: none
    Micros send_timeout() const { return send_timeout_; }
    bool resets_on_close() const { return linger_.l_onoff != 0 && linger_.l_linger == 0; }
    Micros linger_time() const {
        return linger_.l_onoff != 0 ? Micros(std::int64_t{linger_.l_linger} * 1'000'000)
                                    : Micros::zero();
    }
    /// recv() and poll() wait for so many bytes.
    std::uint32_t receive_low_water() const {
        return static_cast<std::uint32_t>(value_of(OptionRow::ReceiveLowWater));
    }
    std::uint64_t max_pacing_rate() const { return max_pacing_; }
    bool is_set(OptionRow row) const { return (set_ >> static_cast<unsigned>(row) & 1) != 0; }
    int value_of(OptionRow row) const { return values_[static_cast<std::size_t>(row)]; }

private:
    int set_linger(client::Channel* channel, client::Socket* socket, const void* value,
                   socklen_t length);
    int set_congestion(const void* value, socklen_t length);
    int set_max_pacing(client::Channel* channel, client::Socket* socket, const void* value,
                       socklen_t length);
    int set_timeout(Micros& timeout, const void* value, socklen_t length);

    std::array<int, static_cast<std::size_t>(OptionRow::Count)> values_{};
    std::uint32_t set_ = 0;  ///< bit for each row that the program set
    ::linger linger_{};
    Micros receive_timeout_{0};
    Micros send_timeout_{0};
    std::uint64_t max_pacing_ = kNoPacing;  ///< bytes a second
    std::uint8_t congestion_ = 0;  ///< shm::CongestionAlgorithm
    bool congestion_set_ = false;
};

}  // namespace chiru::posix
