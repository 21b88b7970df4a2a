// SPDX-License-Identifier: Apache-2.0
#include "stack/wire/ipv6.hpp"

namespace chiru::wire {
namespace {

struct OptionFault {
    std::size_t at;  ///< within the options
    std::uint8_t action;
    bool malformed;
};

/// Looks for an option that must not be skipped (RFC 8200 §4.2). We know the padding only, and
/// skip what says it may be skipped: router alert (RFC 2711) among them.
std::optional<OptionFault> check_options(std::span<const std::byte> options) {
    std::size_t at = 0;
    for (int count = 0; at < options.size(); ++count) {
        if (count == kMaxHeaderOptions) return OptionFault{at, 0, true};
        const auto type = std::to_integer<std::uint8_t>(options[at]);
        if (type == 0) {  // Pad1 has no length
            ++at;
            continue;
        }
        if (options.size() - at < 2) return OptionFault{at, 0, true};
        const auto length = std::to_integer<std::size_t>(options[at + 1]);
        if (length > options.size() - at - 2) return OptionFault{at, 0, true};
        const auto action = static_cast<std::uint8_t>(type >> 6);
        if (action != 0) return OptionFault{at, action, false};
        at += 2 + length;
    }
    return std::nullopt;
}

bool is_options(Protocol protocol) {
    return protocol == Protocol::HopByHop || protocol == Protocol::DestinationOptions;
}

}  // namespace

Ipv6Chain walk_extensions(std::uint8_t first, std::span<const std::byte> payload, int walked) {
    Ipv6Chain chain;
    chain.protocol = first;
    chain.protocol_at = offsetof(Ipv6Header, next_header);
    const auto ended = [&chain](Ipv6Chain::End end) {
        chain.end = end;
        return chain;
    };

    for (int count = walked; count <= kMaxExtensionHeaders; ++count) {
        const auto protocol = static_cast<Protocol>(chain.protocol);
        const std::span<const std::byte> rest = payload.subspan(chain.offset);
        if (protocol == Protocol::Fragment) {
            const auto fragment = read_header<FragmentHeader>(rest);
            if (!fragment) return ended(Ipv6Chain::End::Malformed);
            chain.fragment = *fragment;
            chain.protocol = fragment->next_header;
            chain.protocol_at = sizeof(Ipv6Header) + chain.offset;
            chain.offset += sizeof(FragmentHeader);
            if (!fragment->is_atomic()) return ended(Ipv6Chain::End::Fragment);
            continue;
        }
        if (!is_options(protocol) && protocol != Protocol::Routing)
            return ended(Ipv6Chain::End::UpperLayer);
        if (protocol == Protocol::HopByHop && count != 0) {
            chain.problem = chain.protocol_at;
            return ended(Ipv6Chain::End::BadHeader);
        }
        if (rest.size() < 8) return ended(Ipv6Chain::End::Malformed);
        const std::size_t length = 8 * (std::to_integer<std::size_t>(rest[1]) + 1);
        if (length > rest.size()) return ended(Ipv6Chain::End::Malformed);
        if (is_options(protocol)) {
            if (const auto fault = check_options(rest.subspan(2, length - 2))) {
                if (fault->malformed) return ended(Ipv6Chain::End::Malformed);
                chain.option_action = fault->action;
                chain.problem = sizeof(Ipv6Header) + chain.offset + 2 + fault->at;
                return ended(Ipv6Chain::End::BadOption);
            }
        } else if (rest[3] != std::byte{0}) {  // segments left: we are no router (RFC 8200 §4.4)
            chain.problem = sizeof(Ipv6Header) + chain.offset + 2;
            return ended(Ipv6Chain::End::BadRouting);
        }
        chain.protocol = std::to_integer<std::uint8_t>(rest[0]);
        chain.protocol_at = sizeof(Ipv6Header) + chain.offset;
        chain.offset += length;
    }
    return ended(Ipv6Chain::End::TooLong);
}

std::optional<UpperLayer> find_upper_layer(std::uint8_t first,
                                           std::span<const std::byte> payload) {
    std::uint8_t next = first;
    for (int count = 0; count <= kMaxExtensionHeaders; ++count) {
        const auto protocol = static_cast<Protocol>(next);
        std::size_t length = sizeof(FragmentHeader);
        if (protocol == Protocol::Fragment) {
            const auto fragment = read_header<FragmentHeader>(payload);
            if (!fragment || fragment->offset() != 0) return std::nullopt;
        } else if (is_options(protocol) || protocol == Protocol::Routing) {
            if (payload.size() < 8) return std::nullopt;
            length = 8 * (std::to_integer<std::size_t>(payload[1]) + 1);
            if (length > payload.size()) return std::nullopt;
        } else {
            return UpperLayer{next, payload};
        }
        next = std::to_integer<std::uint8_t>(payload[0]);
        payload = payload.subspan(length);
    }
    return std::nullopt;
}

}  // namespace chiru::wire
