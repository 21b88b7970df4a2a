// SPDX-License-Identifier: Apache-2.0
//
// How single values of the configuration are written: numbers, sizes, durations, names, addresses,
// devices. Each parser takes the text and returns the value, or a phrase that says what is wrong
// with it and what is allowed.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "base/time.hpp"

#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chiru::daemon {

template <class T>
using Parsed = Result<T, std::string>;

Parsed<std::uint64_t> parse_integer(const std::string& text, std::uint64_t low,
                                    std::uint64_t high);
/// "65536", "64K", "16M", "1G"; powers of 1024.
Parsed<std::uint64_t> parse_size(const std::string& text, std::uint64_t low, std::uint64_t high);
/// "200us", "5ms", "1s", "2m", "1h".
Parsed<Micros> parse_duration(const std::string& text, Micros low, Micros high);
Parsed<bool> parse_bool(const std::string& text);
/// Permission bits in octal, as chmod takes them.
Parsed<std::uint32_t> parse_mode(const std::string& text);
/// Letters, digits, '.', '_' and '-', 31 of them at most.
Parsed<std::string> parse_name(const std::string& text);
/// An absolute path that fits into a socket's address.
Parsed<std::string> parse_socket_path(const std::string& text);
/// A PCI address or an EAL vdev string.
Parsed<std::string> parse_device(const std::string& text);
/// The address of an interface: a host's, with the length of its network.
Parsed<IpPrefix> parse_interface_address(const std::string& text);
/// The address of a neighbour.
Parsed<IpAddress> parse_gateway(const std::string& text);
/// A network without host bits.
Parsed<IpPrefix> parse_network(const std::string& text);
/// "none" is 0.
Parsed<std::uint16_t> parse_vlan(const std::string& text);

/// `text` in quotes, cut if long and without control characters: fit to stand in a message.
std::string quoted(const std::string& text);
/// The candidate most like `word`, or nothing if none is near.
std::string nearest(const std::string& word, std::span<const std::string> candidates);

/// An integer of type T from `low` to `high`.
template <std::unsigned_integral T>
auto integer(T low, T high) {
    return [=](const std::string& text) -> Parsed<T> {
        const Parsed<std::uint64_t> value = parse_integer(text, low, high);
        if (!value) return std::unexpected(value.error());
        return static_cast<T>(*value);
    };
}

template <std::unsigned_integral T>
auto size(T low, T high) {
    return [=](const std::string& text) -> Parsed<T> {
        const Parsed<std::uint64_t> value = parse_size(text, low, high);
        if (!value) return std::unexpected(value.error());
        return static_cast<T>(*value);
    };
}

inline auto duration(Micros low, Micros high) {
    return [=](const std::string& text) { return parse_duration(text, low, high); };
}

/// One word out of several.
template <class T>
auto one_of(std::vector<std::pair<std::string, T>> words) {
    return [words = std::move(words)](const std::string& text) -> Parsed<T> {
        std::string allowed;
        for (const auto& [word, value] : words) {
            if (text == word) return value;
            allowed += (allowed.empty() ? "" : ", ") + word;
        }
        return std::unexpected(quoted(text) + " is none of " + allowed);
    };
}

}  // namespace chiru::daemon
