// SPDX-License-Identifier: Apache-2.0
//
// Network addresses as values: IPv4 and IPv6 in one type, so that no table, option or printout
// can forget one of them. An IPv4 address is held in its mapped form, ::ffff:a.b.c.d
// (RFC 4291 §2.5.5.2), which never appears on the wire.
#pragma once

#include "base/endian.hpp"

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace chiru {

struct MacAddress {
    std::array<std::uint8_t, 6> bytes{};

    bool is_multicast() const { return (bytes[0] & 1) != 0; }
    friend bool operator==(const MacAddress&, const MacAddress&) = default;
};
inline constexpr MacAddress kBroadcastMac{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

class IpAddress {
public:
    using Bytes = std::array<std::uint8_t, 16>;

    /// The unspecified IPv6 address, "::".
    constexpr IpAddress() = default;
    constexpr explicit IpAddress(const Bytes& v6) : bytes_(v6) {}

    static constexpr IpAddress v4(std::uint32_t host_order) {
        return IpAddress(Bytes{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff,
                               static_cast<std::uint8_t>(host_order >> 24),
                               static_cast<std::uint8_t>(host_order >> 16),
                               static_cast<std::uint8_t>(host_order >> 8),
                               static_cast<std::uint8_t>(host_order)});
    }

    /// "10.7.0.2" or "fd07::2"; nothing if it is neither.
    static std::optional<IpAddress> parse(std::string_view text);
    std::string to_string() const;

    constexpr bool is_v4() const {  // two comparisons, because every packet asks several times
        constexpr auto kMapped =
            std::bit_cast<std::uint32_t>(std::array<std::uint8_t, 4>{0, 0, 0xff, 0xff});
        const auto words = std::bit_cast<std::array<std::uint32_t, 4>>(bytes_);
        return (words[0] | words[1]) == 0 && words[2] == kMapped;
    }
    constexpr bool is_v6() const { return !is_v4(); }
    /// Only if is_v4(); in host order.
    constexpr std::uint32_t v4_bits() const {
        return std::uint32_t{bytes_[12]} << 24 | std::uint32_t{bytes_[13]} << 16 |
               std::uint32_t{bytes_[14]} << 8 | bytes_[15];
    }
    constexpr const Bytes& bytes() const { return bytes_; }
    /// The bytes as they stand in a packet: 4 or 16 of them.
    std::span<const std::uint8_t> wire() const {
        return is_v4() ? std::span<const std::uint8_t>(bytes_).subspan(12)
                       : std::span<const std::uint8_t>(bytes_);
    }

    constexpr bool is_unspecified() const {  ///< 0.0.0.0 or ::
        return *this == IpAddress() || *this == v4(0);
    }
    constexpr bool is_loopback() const {  ///< 127.0.0.0/8 or ::1
        return is_v4() ? bytes_[12] == 127
                       : *this == IpAddress(Bytes{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
    }
    constexpr bool is_multicast() const {  ///< 224.0.0.0/4 or ff00::/8
        return is_v4() ? (bytes_[12] & 0xf0) == 0xe0 : bytes_[0] == 0xff;
    }
    bool is_link_local() const;   ///< 169.254.0.0/16 or fe80::/10
    bool is_broadcast() const { return is_v4() && v4_bits() == 0xffff'ffff; }

    friend constexpr bool operator==(const IpAddress& a, const IpAddress& b) {
        const Words x = a.words(), y = b.words();  // by bytes it would be a call of memcmp()
        return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
    }
    friend constexpr auto operator<=>(const IpAddress&, const IpAddress&) = default;

private:
    using Words = std::array<std::uint64_t, 2>;
    constexpr Words words() const { return std::bit_cast<Words>(bytes_); }

    Bytes bytes_{};
};
static_assert(sizeof(IpAddress) == 16 && alignof(IpAddress) == 1);

/// An address with the length of its network part, counted within its own family:
/// 10.7.0.2/24 has 24, fd07::2/64 has 64.
struct IpPrefix {
    IpAddress address;
    std::uint8_t length = 0;

    /// "10.7.0.2/24"; the host bits are kept, for an interface's address has them.
    static std::optional<IpPrefix> parse(std::string_view text);
    std::string to_string() const;

    /// Is `other` of the same family and equal in the first `length` bits?
    bool contains(const IpAddress& other) const;

    friend bool operator==(const IpPrefix&, const IpPrefix&) = default;
};

/// Where a transport speaks: an address and a port number, in host order.
struct Endpoint {
    IpAddress address;
    std::uint16_t port = 0;

    /// "10.7.0.2:80" or "[fd07::2]:80".
    std::string to_string() const;

    friend bool operator==(const Endpoint&, const Endpoint&) = default;
};
static_assert(sizeof(Endpoint) == 18 && alignof(Endpoint) == 2);

std::string to_string(const MacAddress& mac);
std::optional<MacAddress> parse_mac(std::string_view text);

}  // namespace chiru
