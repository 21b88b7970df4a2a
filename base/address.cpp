// SPDX-License-Identifier: Apache-2.0
#include "base/address.hpp"

#include <arpa/inet.h>

#include <charconv>
#include <cstdio>

namespace chiru {

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
    const std::string copy(text);  // inet_pton wants a terminated string
    in_addr four{};
    if (inet_pton(AF_INET, copy.c_str(), &four) == 1) return v4(ntohl(four.s_addr));
    in6_addr six{};
    if (inet_pton(AF_INET6, copy.c_str(), &six) != 1) return std::nullopt;
    Bytes bytes;
    std::memcpy(bytes.data(), &six, bytes.size());
    return IpAddress(bytes);
}

std::string IpAddress::to_string() const {
    char text[INET6_ADDRSTRLEN];
    const std::span<const std::uint8_t> raw = wire();
    inet_ntop(is_v4() ? AF_INET : AF_INET6, raw.data(), text, sizeof text);
    return text;
}

bool IpAddress::is_link_local() const {
    if (is_v4()) return bytes_[12] == 169 && bytes_[13] == 254;
    return bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
}

std::optional<IpPrefix> IpPrefix::parse(std::string_view text) {
    const std::size_t slash = text.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    const std::optional<IpAddress> address = IpAddress::parse(text.substr(0, slash));
    if (!address) return std::nullopt;
    const std::string_view digits = text.substr(slash + 1);
    unsigned length = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    if (length > (address->is_v4() ? 32u : 128u)) return std::nullopt;
    return IpPrefix{*address, static_cast<std::uint8_t>(length)};
}

std::string IpPrefix::to_string() const {
    return address.to_string() + "/" + std::to_string(length);
}

bool IpPrefix::contains(const IpAddress& other) const {
    if (address.is_v4() != other.is_v4()) return false;
    const std::span<const std::uint8_t> ours = address.wire();
    const std::span<const std::uint8_t> theirs = other.wire();
    const std::size_t whole = length / 8;
    for (std::size_t i = 0; i < whole; ++i)
        if (ours[i] != theirs[i]) return false;
    const unsigned rest = length % 8;
    if (rest == 0) return true;
    const unsigned mask = 0xff00u >> rest & 0xffu;
    return ((ours[whole] ^ theirs[whole]) & mask) == 0;
}

std::string Endpoint::to_string() const {
    const std::string host = address.to_string();
    return (address.is_v4() ? host : "[" + host + "]") + ":" + std::to_string(port);
}

std::string to_string(const MacAddress& mac) {
    char text[18];
    std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac.bytes[0], mac.bytes[1],
                  mac.bytes[2], mac.bytes[3], mac.bytes[4], mac.bytes[5]);
    return text;
}

std::optional<MacAddress> parse_mac(std::string_view text) {
    MacAddress mac;
    if (text.size() != 17) return std::nullopt;
    for (std::size_t i = 0; i < 6; ++i) {
        const char* digits = text.data() + 3 * i;
        if (i > 0 && digits[-1] != ':') return std::nullopt;
        const auto [end, error] = std::from_chars(digits, digits + 2, mac.bytes[i], 16);
        if (error != std::errc() || end != digits + 2) return std::nullopt;
    }
    return mac;
}

}  // namespace chiru
