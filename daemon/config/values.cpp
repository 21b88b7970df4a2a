// SPDX-License-Identifier: Apache-2.0
#include "daemon/config/values.hpp"

#include "shm/directory.hpp"

#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <regex>

namespace chiru::daemon {
namespace {

/// All of `text` as a decimal number.
std::optional<std::uint64_t> decimal(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::string size_text(std::uint64_t bytes) {
    constexpr std::array kUnits{"", "K", "M", "G"};
    std::size_t unit = 0;
    while (unit + 1 < kUnits.size() && bytes != 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        ++unit;
    }
    return std::to_string(bytes) + kUnits[unit];
}

struct TimeUnit {
    const char* name;
    std::int64_t micros;
};
constexpr std::array<TimeUnit, 5> kTimeUnits{
    {{"h", 3'600'000'000}, {"m", 60'000'000}, {"s", 1'000'000}, {"ms", 1'000}, {"us", 1}}};

std::string duration_text(Micros duration) {
    for (const TimeUnit& unit : kTimeUnits)
        if (duration.count() % unit.micros == 0 && duration.count() >= unit.micros)
            return std::to_string(duration.count() / unit.micros) + unit.name;
    return std::to_string(duration.count()) + "us";
}

bool has_host_bits(const IpPrefix& prefix) {
    const std::span<const std::uint8_t> bytes = prefix.address.wire();
    for (std::size_t bit = prefix.length; bit < bytes.size() * 8; ++bit)
        if ((bytes[bit / 8] >> (7 - bit % 8) & 1) != 0) return true;
    return false;
}

bool is_all_ones(const IpPrefix& prefix) {
    const std::uint32_t host = prefix.length == 0 ? ~0u : (1u << (32 - prefix.length)) - 1;
    return (prefix.address.v4_bits() & host) == host;
}

std::string family(const IpAddress& address) { return address.is_v4() ? "IPv4" : "IPv6"; }

/// What keeps `address` from being a host's, if anything.
std::optional<std::string> not_a_host(const IpAddress& address) {
    if (address.is_unspecified()) return "is the unspecified address; give a host's";
    if (address.is_multicast()) return "is a multicast address; give a host's";
    if (address.is_broadcast()) return "is the broadcast address; give a host's";
    if (address.is_loopback()) return "is a loopback address, which stays inside every host";
    return std::nullopt;
}

}  // namespace

std::string quoted(const std::string& text) {
    constexpr std::size_t kLongest = 60;
    std::string shown = text.substr(0, kLongest);
    for (char& c : shown)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return "\"" + shown + (text.size() > kLongest ? "..." : "") + "\"";
}

std::string nearest(const std::string& word, std::span<const std::string> candidates) {
    std::string best;
    std::size_t best_distance = 3;  // edits beyond this, and it is another word
    for (const std::string& candidate : candidates) {
        std::vector<std::size_t> row(candidate.size() + 1);
        for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
        for (std::size_t i = 1; i <= word.size(); ++i) {
            std::size_t diagonal = row[0];
            row[0] = i;
            for (std::size_t j = 1; j < row.size(); ++j) {
                const std::size_t replaced = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
            }
        }
        if (row.back() < best_distance && row.back() < candidate.size()) {
            best_distance = row.back();
            best = candidate;
        }
    }
    return best;
}

Parsed<std::uint64_t> parse_integer(const std::string& text, std::uint64_t low,
                                    std::uint64_t high) {
    const std::optional<std::uint64_t> value = decimal(text);
    if (value && *value >= low && *value <= high) return *value;
    return std::unexpected(quoted(text) + " is not a whole number from " + std::to_string(low) +
                           " to " + std::to_string(high));
}

Parsed<std::uint64_t> parse_size(const std::string& text, std::uint64_t low, std::uint64_t high) {
    constexpr std::string_view kUnits = "KMG";
    std::string_view digits = text;
    unsigned shift = 0;
    if (!digits.empty()) {
        if (const std::size_t unit = kUnits.find(digits.back()); unit != std::string_view::npos) {
            shift = static_cast<unsigned>(10 * (unit + 1));
            digits.remove_suffix(1);
        }
    }
    const std::optional<std::uint64_t> count = decimal(digits);
    if (count && *count <= high >> shift && *count << shift >= low) return *count << shift;
    return std::unexpected(quoted(text) + " is not a size from " + size_text(low) + " to " +
                           size_text(high) + " (bytes, or with K, M or G)");
}

Parsed<Micros> parse_duration(const std::string& text, Micros low, Micros high) {
    const std::size_t end = text.find_first_not_of("0123456789");
    const std::optional<std::uint64_t> count = decimal(std::string_view(text).substr(0, end));
    const std::string unit_name = end == std::string::npos ? "" : text.substr(end);
    for (const TimeUnit& unit : kTimeUnits) {
        if (!count || unit_name != unit.name) continue;
        if (*count > static_cast<std::uint64_t>(high.count() / unit.micros)) break;
        const Micros value(static_cast<std::int64_t>(*count) * unit.micros);
        if (value >= low) return value;
    }
    return std::unexpected(quoted(text) + " is not a duration from " + duration_text(low) +
                           " to " + duration_text(high) + " (a number with us, ms, s, m or h)");
}

Parsed<bool> parse_bool(const std::string& text) {
    if (text == "true" || text == "yes" || text == "on") return true;
    if (text == "false" || text == "no" || text == "off") return false;
    return std::unexpected(quoted(text) + " is neither true nor false");
}

Parsed<std::uint32_t> parse_mode(const std::string& text) {
    std::uint32_t mode = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
    const bool octal = error == std::errc() && end == text.data() + text.size();
    // Without write permission nobody can connect, the daemon's own user included.
    if (octal && text.size() >= 3 && mode <= 0777 && (mode & 0600) == 0600) return mode;
    return std::unexpected(quoted(text) +
                           " is not a mode such as 0600, 0660 or 0666 (octal; the owner must be "
                           "able to read and write)");
}

Parsed<std::string> parse_name(const std::string& text) {
    static const std::regex kName("[A-Za-z0-9][A-Za-z0-9._-]{0,30}");
    if (std::regex_match(text, kName)) return text;
    return std::unexpected(quoted(text) +
                           " is not a name: 1 to 31 letters, digits, '.', '_' or '-', beginning "
                           "with a letter or digit");
}

Parsed<std::string> parse_socket_path(const std::string& text) {
    constexpr std::size_t kLongest = sizeof(sockaddr_un::sun_path) - 1;
    if (text.empty() || text.front() != '/' || text.back() == '/')
        return std::unexpected(quoted(text) + " is not the absolute path of a socket, such as " +
                               "/run/chiru/control.sock");
    if (text.size() > kLongest)
        return std::unexpected(quoted(text) + " has " + std::to_string(text.size()) +
                               " characters; a socket's path may have " +
                               std::to_string(kLongest));
    return text;
}

Parsed<std::string> parse_device(const std::string& text) {
    static const std::regex kPci(
        "([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[01][0-9a-fA-F]\\.[0-7](,[^ ,]+)*");
    static const std::regex kVdev("(net|eth)_[a-z0-9_]*[a-z0-9](,[^ ,]+)*");
    constexpr std::size_t kLongest = sizeof(shm::PortInfo::device) - 1;
    if (text.size() > kLongest)
        return std::unexpected("has " + std::to_string(text.size()) +
                               " characters; a device may have " + std::to_string(kLongest));
    if (std::regex_match(text, kPci)) return text;
    if (!std::regex_match(text, kVdev))
        return std::unexpected(quoted(text) +
                               " is neither a PCI address (0000:3b:00.0) nor an EAL vdev string "
                               "(net_tap0,iface=chiru0; net_af_packet0,iface=eth1; "
                               "net_af_xdp0,iface=eth1; net_memif0,role=server)");
    for (const char* driver : {"net_af_packet", "net_af_xdp"})
        if (text.starts_with(driver) && text.find(",iface=") == std::string::npos)
            return std::unexpected(quoted(text) + " needs \",iface=NAME\", the kernel's interface "
                                                  "to take frames from");
    return text;
}

Parsed<IpPrefix> parse_interface_address(const std::string& text) {
    const std::optional<IpPrefix> prefix = IpPrefix::parse(text);
    if (!prefix) {
        if (IpAddress::parse(text))
            return std::unexpected(quoted(text) + " lacks the length of its network, as in " +
                                   quoted(text + (text.find(':') == text.npos ? "/24" : "/64")));
        const std::size_t slash = text.find('/');
        if (const auto address = IpAddress::parse(text.substr(0, slash)))
            return std::unexpected(quoted(text) + " has a length that is not from 1 to " +
                                   (address->is_v4() ? "32" : "128"));
        return std::unexpected(quoted(text) + " is not an address with a length, such as "
                                              "10.7.0.2/24 or \"fd07::2/64\"");
    }
    if (const auto wrong = not_a_host(prefix->address))
        return std::unexpected(quoted(text) + " " + *wrong);
    const bool v4 = prefix->address.is_v4();
    if (prefix->length == 0)
        return std::unexpected(quoted(text) + " puts every " + family(prefix->address) +
                               " host on the link; give a length from 1 to " +
                               (v4 ? "32" : "128"));
    if (v4 && prefix->length < 31 && !has_host_bits(*prefix))
        return std::unexpected(quoted(text) + " is the network's own address, not a host's");
    if (v4 && prefix->length < 31 && is_all_ones(*prefix))
        return std::unexpected(quoted(text) + " is the network's broadcast address, not a host's");
    return *prefix;
}

Parsed<IpAddress> parse_gateway(const std::string& text) {
    const std::optional<IpAddress> address = IpAddress::parse(text);
    if (!address)
        return std::unexpected(quoted(text) +
                               " is not an address, such as 10.7.0.1 or \"fe80::1\"");
    if (const auto wrong = not_a_host(*address))
        return std::unexpected(quoted(text) + " " + *wrong);
    return *address;
}

Parsed<IpPrefix> parse_network(const std::string& text) {
    const std::optional<IpPrefix> prefix = IpPrefix::parse(text);
    if (!prefix)
        return std::unexpected(quoted(text) + " is neither \"default\" nor a network, such as "
                                              "10.8.0.0/16 or \"fd08::/48\"");
    if (prefix->address.is_multicast())
        return std::unexpected(quoted(text) + " is a multicast network; routes lead to hosts");
    if (has_host_bits(*prefix))
        return std::unexpected(quoted(text) + " has bits set behind its length of " +
                               std::to_string(prefix->length));
    return *prefix;
}

Parsed<std::uint16_t> parse_vlan(const std::string& text) {
    constexpr std::uint64_t kLast = 4094;  // 4095 is reserved (IEEE 802.1Q)
    if (text == "none") return std::uint16_t{0};
    if (const Parsed<std::uint64_t> id = parse_integer(text, 1, kLast))
        return static_cast<std::uint16_t>(*id);
    return std::unexpected(quoted(text) + " is neither none nor a VLAN id from 1 to 4094");
}

}  // namespace chiru::daemon
