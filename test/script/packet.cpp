// SPDX-License-Identifier: Apache-2.0
#include "test/script/packet.hpp"

#include "stack/wire/arp.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace chiru::script {

namespace {

using test::operator+;
using wire::EtherType;

constexpr std::uint8_t kTcp = 6;

std::uint32_t number(const Option& option, std::size_t word, unsigned base = 10) {
    if (word >= option.words.size())
        throw std::runtime_error("option " + option.name + " wants more values");
    const std::string& text = option.words[word];
    std::uint32_t value = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), value, static_cast<int>(base));
    if (error != std::errc{} || end != text.data() + text.size())
        throw std::runtime_error("option " + option.name + ": '" + text + "' is not a number");
    return value;
}

/// "first:end" of a SACK block.
std::pair<std::uint32_t, std::uint32_t> block_of(const std::string& word) {
    const std::size_t colon = word.find(':');
    if (colon == std::string::npos) throw std::runtime_error("sack wants first:end");
    return {static_cast<std::uint32_t>(std::stoul(word.substr(0, colon))),
            static_cast<std::uint32_t>(std::stoul(word.substr(colon + 1)))};
}

void put(Frame& bytes, std::initializer_list<std::uint32_t> values) {
    for (const std::uint32_t value : values) bytes.push_back(static_cast<std::byte>(value));
}

void put32(Frame& bytes, std::uint32_t value) {
    put(bytes, {value >> 24, value >> 16, value >> 8, value});
}

/// "100", "last", or "last-5": a timestamp of the stack's to echo.
std::uint32_t echo_of(const Option& option, const Flow& flow) {
    const std::string& word = option.words.at(1);
    if (!word.starts_with("last")) return number(option, 1);
    if (word.size() == 4) return flow.last_timestamp;
    return flow.last_timestamp + static_cast<std::uint32_t>(std::stol(word.substr(4)));
}

/// Where a segment's text begins in the stream: the SYN takes the number in front of it.
std::uint32_t text_offset(std::uint32_t first, std::uint8_t flags) {
    return (flags & wire::kSyn) != 0 ? first : first - 1;
}

Frame bytes_of(const std::string& digits) {
    Frame bytes;
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
        bytes.push_back(static_cast<std::byte>(std::stoul(digits.substr(i, 2), nullptr, 16)));
    return bytes;
}

std::string digits_of(std::span<const std::byte> bytes) {
    std::string digits;
    for (const std::byte b : bytes) {
        digits += "0123456789abcdef"[std::to_integer<unsigned>(b) >> 4];
        digits += "0123456789abcdef"[std::to_integer<unsigned>(b) & 15];
    }
    return digits;
}

/// Each option is padded in front, so that the list is whole words.
void write_option(Frame& bytes, const Option& option, const Flow& flow) {
    if (option.name == "mss") {
        put(bytes, {2, 4, number(option, 0) >> 8, number(option, 0)});
    } else if (option.name == "wscale") {
        put(bytes, {1, 3, 3, number(option, 0)});
    } else if (option.name == "sackOK") {
        put(bytes, {1, 1, 4, 2});
    } else if (option.name == "TS") {
        put(bytes, {1, 1, 8, 10});
        put32(bytes, number(option, 0));
        put32(bytes, echo_of(option, flow));
    } else if (option.name == "sack") {
        put(bytes, {1, 1, 5, static_cast<std::uint32_t>(2 + 8 * option.words.size())});
        for (const std::string& word : option.words) {
            put32(bytes, flow.stack_isn.value_or(0) + block_of(word).first);
            put32(bytes, flow.stack_isn.value_or(0) + block_of(word).second);
        }
    } else if (option.name == "fo") {
        Frame cookie;
        for (const std::string& word : option.words)
            cookie = cookie + bytes_of(word == "last" ? flow.last_cookie : word);
        const auto length = static_cast<std::uint32_t>(2 + cookie.size());
        while ((bytes.size() + length) % 4 != 0) put(bytes, {1});
        put(bytes, {34, length});
        bytes = bytes + cookie;
    } else if (option.name == "raw") {
        for (std::size_t i = 0; i < option.words.size(); ++i) put(bytes, {number(option, i, 16)});
    } else {
        throw std::runtime_error("'" + option.name + "' is no option");
    }
}

Frame tcp_bytes(const Segment& s, const Ends& ends, const Flow& flow) {
    Frame options;
    for (const Option& option : s.options) write_option(options, option, flow);
    while (options.size() % 4 != 0) put(options, {0});
    const std::size_t words = s.header_words.value_or(5 + options.size() / 4);
    wire::TcpHeader header{};
    header.source_port = s.from_stack_address ? flow.stack_port : flow.peer_port;
    header.destination_port = flow.stack_port;
    header.sequence = flow.peer_isn + s.first;
    header.acknowledgment = s.ack ? flow.stack_isn.value_or(0) + *s.ack : 0;
    header.data_offset = static_cast<std::uint8_t>(words << 4 | s.reserved.value_or(0));
    header.flags = s.flags;
    header.window = static_cast<std::uint16_t>(s.window_least.value_or(65'535));
    header.urgent_pointer = static_cast<std::uint16_t>(s.urgent.value_or(0));
    Frame bytes = test::as_bytes(header) + options;
    const std::byte change{s.altered ? std::uint8_t{0xff} : std::uint8_t{0}};
    for (std::uint32_t i = 0; i < s.length; ++i)
        bytes.push_back(text_byte(text_offset(s.first, s.flags) + i) ^ change);
    const IpAddress& source = s.from_stack_address ? ends.stack : ends.peer;
    auto sum = wire::pseudo_header(source, ends.stack, kTcp, bytes.size());
    sum.add(bytes);
    const be16 checksum(static_cast<std::uint16_t>(sum.checksum() ^ (s.bad_checksum ? 1 : 0)));
    std::memcpy(bytes.data() + offsetof(wire::TcpHeader, checksum), &checksum, sizeof checksum);
    return bytes;
}

EtherType type_of(const Ends& ends) {
    return ends.stack.is_v4() ? EtherType::Ipv4 : EtherType::Ipv6;
}

Frame ip_packet(const IpAddress& source, const IpAddress& destination, wire::Protocol protocol,
                const Frame& payload, std::uint8_t tos = 0) {
    if (source.is_v4()) {
        test::V4 fields{.source = source, .destination = destination, .protocol = protocol};
        fields.tos = tos;
        return test::ipv4(fields, payload);
    }
    test::V6 fields{.source = source, .destination = destination, .next = protocol};
    fields.traffic_class = tos;
    return test::ipv6(fields, payload);
}

Frame to_stack(const Ends& ends, EtherType type, const Frame& packet) {
    return test::ethernet({ends.peer_mac, ends.stack_mac, ends.vlan}, type, packet);
}

struct IcmpCode {
    std::string_view name;
    std::uint8_t type4, code4, type6, code6;
};

constexpr IcmpCode kIcmpCodes[] = {
    {"net_unreachable", 3, 0, 1, 0},      {"host_unreachable", 3, 1, 1, 3},
    {"protocol_unreachable", 3, 2, 4, 1}, {"port_unreachable", 3, 3, 1, 4},
    {"too_big", 3, 4, 2, 0},              {"prohibited", 3, 13, 1, 1},
    {"time_exceeded", 11, 0, 3, 0},       {"parameter_problem", 12, 0, 4, 0},
    {"source_quench", 4, 0, 100, 0},
};

/// The words of an option list that was received, with its SACK blocks as they are.
void read_option(Heard& heard, wire::TcpOption kind, std::span<const std::byte> body) {
    const auto word = [&](std::size_t at) {
        be32 value;
        std::memcpy(&value, body.data() + at, sizeof value);
        return std::uint32_t{value};
    };
    const auto byte = [&](std::size_t at) { return std::to_integer<unsigned>(body[at]); };
    if (kind == wire::TcpOption::Mss && body.size() == 2) {
        heard.options.push_back({"mss", {std::to_string(byte(0) << 8 | byte(1))}});
    } else if (kind == wire::TcpOption::WindowScale && body.size() == 1) {
        heard.options.push_back({"wscale", {std::to_string(byte(0))}});
    } else if (kind == wire::TcpOption::SackPermitted) {
        heard.options.push_back({"sackOK", {}});
    } else if (kind == wire::TcpOption::Timestamps && body.size() == 8) {
        heard.timestamp = word(0);
        heard.echo = word(4);
        heard.options.push_back({"TS", {std::to_string(word(0)), std::to_string(word(4))}});
    } else if (kind == wire::TcpOption::Sack) {
        Option blocks{"sack", {}};
        for (std::size_t i = 0; i + 4 <= body.size(); i += 4)
            blocks.words.push_back(std::to_string(word(i)));
        heard.options.push_back(std::move(blocks));
    } else if (kind == wire::TcpOption::FastOpen) {
        Option cookie{"fo", {}};
        if (!body.empty()) cookie.words.push_back(digits_of(body));
        heard.options.push_back(std::move(cookie));
    } else {
        heard.options.push_back({"kind" + std::to_string(static_cast<int>(kind)), {}});
    }
}

/// As it is written: SACK blocks relative, timestamps of the stack's as '*'.
std::string written(const Option& option, const Flow& flow) {
    std::string text = option.name;
    if (option.name == "sack") {
        for (std::size_t i = 0; i + 1 < option.words.size(); i += 2) {
            const auto edge = [&](std::size_t at) {
                const auto value = static_cast<std::uint32_t>(std::stoul(option.words[at]));
                return std::to_string(value - flow.peer_isn);
            };
            text += " " + edge(i) + ":" + edge(i + 1);
        }
    } else if (option.name == "TS") {
        text += " * " + option.words.at(1);
    } else {
        for (const std::string& word : option.words) text += " " + word;
    }
    return text;
}

/// As it is written, with "mss max" made a number.
std::string wanted(const Option& option, const Ends& ends) {
    std::string text = option.name;
    for (const std::string& word : option.words)
        text += " " + (word == "max" ? std::to_string(1500 - ends.header_bytes()) : word);
    return text;
}

/// Word by word; '*' stands for any one.
bool matches(const std::string& pattern, const std::string& text) {
    std::istringstream wanted(pattern), has(text);
    for (std::string a, b;;) {
        const bool more = static_cast<bool>(wanted >> a);
        if (static_cast<bool>(has >> b) != more) return false;
        if (!more) return true;
        if (a != "*" && a != b) return false;
    }
}

std::string differing_options(const Segment& expected, const Heard& heard, const Ends& ends,
                              const Flow& flow) {
    std::string wrong;
    for (const Option& option : expected.options) {
        const bool absent = option.name == "no";
        const std::string text = absent ? option.words.at(0) : wanted(option, ends);
        const bool there = std::ranges::any_of(heard.options, [&](const Option& has) {
            return absent ? has.name == text : matches(text, written(has, flow));
        });
        if (absent && there) wrong += " " + text + " is there;";
        if (!absent && !there) wrong += " no <" + text + ">;";
    }
    return wrong;
}

}  // namespace

Frame frame_of(const Segment& segment, const Ends& ends, const Flow& flow) {
    const IpAddress& source = segment.from_stack_address ? ends.stack : ends.peer;
    return to_stack(ends, type_of(ends),
                    ip_packet(source, ends.stack, wire::Protocol::Tcp,
                              tcp_bytes(segment, ends, flow),
                              static_cast<std::uint8_t>(segment.ecn.value_or(0))));
}

Frame frame_of(const IcmpError& error, const Ends& ends, const Flow& flow) {
    const auto code = std::ranges::find(kIcmpCodes, error.what, &IcmpCode::name);
    if (code == std::end(kIcmpCodes))
        throw std::runtime_error("'" + error.what + "' is no ICMP error");
    wire::TcpHeader header{};
    header.source_port = flow.stack_port;
    header.destination_port = flow.peer_port;
    header.sequence = flow.stack_isn.value_or(0) + error.first;
    header.data_offset = 5 << 4;
    header.flags = wire::kAck;
    Frame quoted =
        ip_packet(ends.stack, ends.peer, wire::Protocol::Tcp, test::as_bytes(header));
    if (error.length != 0 && ends.stack.is_v4()) {
        const be16 length = static_cast<std::uint16_t>(error.length);
        std::memcpy(quoted.data() + offsetof(wire::Ipv4Header, total_length), &length,
                    sizeof length);
    }
    if (ends.stack.is_v4()) {
        wire::Icmpv4Header icmp{.type = code->type4, .code = code->code4};
        icmp.word1 = static_cast<std::uint16_t>(error.mtu);
        Frame message = test::as_bytes(icmp) + quoted;
        const be16 checksum = wire::checksum(message);
        std::memcpy(message.data() + 2, &checksum, sizeof checksum);
        return to_stack(ends, EtherType::Ipv4,
                        ip_packet(ends.peer, ends.stack, wire::Protocol::Icmp, message));
    }
    wire::Icmpv6Header icmp{.type = code->type6, .code = code->code6};
    icmp.word = error.mtu;
    const Frame message =
        test::icmpv6(ends.peer, ends.stack, test::as_bytes(icmp) + quoted);
    return to_stack(ends, EtherType::Ipv6,
                    ip_packet(ends.peer, ends.stack, wire::Protocol::Icmpv6, message));
}

std::optional<Heard> heard_in(const Frame& frame, const Ends& ends) {
    const auto link = wire::parse_link(frame);
    if (!link || link->type != type_of(ends) || link->vlan != ends.vlan) return std::nullopt;
    const std::span<const std::byte> packet = std::span(frame).subspan(link->bytes);
    Heard heard;
    std::span<const std::byte> l4;
    bool ip_checksum_right = true;
    if (ends.stack.is_v4()) {
        const auto ip = wire::parse_ipv4(packet);
        if (!ip || ip->header.protocol != kTcp || ip->header.source != ends.stack.v4_bits() ||
            ip->header.destination != ends.peer.v4_bits())
            return std::nullopt;
        l4 = ip->payload;
        heard.ecn = ip->header.tos & 3;
        ip_checksum_right = wire::checksum(packet.first(ip->header.header_bytes())) == 0;
    } else {
        const auto ip = wire::parse_ipv6(packet);
        if (!ip || ip->header.next_header != kTcp || ip->header.source != ends.stack ||
            ip->header.destination != ends.peer)
            return std::nullopt;
        l4 = ip->payload;
        heard.ecn = ip->header.traffic_class() & 3;
    }
    const auto header = read_header<wire::TcpHeader>(l4);
    if (!header) return std::nullopt;
    const auto options = wire::options_of(*header, l4);
    if (!options) return std::nullopt;
    auto sum = wire::pseudo_header(ends.stack, ends.peer, kTcp, l4.size());
    sum.add(l4);
    heard.checksums_right = ip_checksum_right && sum.checksum() == 0;
    heard.stack_port = header->source_port;
    heard.peer_port = header->destination_port;
    heard.flags = header->flags;
    heard.sequence = header->sequence;
    heard.acknowledgment = header->acknowledgment;
    heard.window = header->window;
    heard.urgent = header->urgent_pointer;
    const auto text = l4.subspan(header->length_bytes());
    heard.text.assign(text.begin(), text.end());
    wire::for_each_option(*options, [&heard](wire::TcpOption kind, auto body) {
        read_option(heard, kind, body);
    });
    return heard;
}

std::optional<Frame> neighbor_answer(const Frame& frame, const Ends& ends) {
    const auto link = wire::parse_link(frame);
    if (!link || link->vlan != ends.vlan) return std::nullopt;
    const std::span<const std::byte> packet = std::span(frame).subspan(link->bytes);
    if (link->type == EtherType::Arp && ends.peer.is_v4()) {
        const auto arp = wire::parse_arp(packet);
        if (!arp || arp->operation != 1 || arp->target_ip != ends.peer.v4_bits())
            return std::nullopt;
        return to_stack(ends, EtherType::Arp,
                        test::arp(false, ends.peer_mac, ends.peer, ends.stack_mac, ends.stack));
    }
    if (link->type != EtherType::Ipv6 || ends.peer.is_v4()) return std::nullopt;
    const auto ip = wire::parse_ipv6(packet);
    if (!ip || ip->header.next_header != static_cast<std::uint8_t>(wire::Protocol::Icmpv6))
        return std::nullopt;
    const auto asked = read_header<wire::NeighborMessage>(ip->payload);
    if (!asked || asked->type != static_cast<std::uint8_t>(wire::Icmpv6Type::NeighborSolicitation))
        return std::nullopt;
    if (asked->target != ends.peer || ip->header.source.is_unspecified()) return std::nullopt;
    wire::NeighborMessage answer{
        .type = static_cast<std::uint8_t>(wire::Icmpv6Type::NeighborAdvertisement),
        .flags = std::uint32_t{wire::kNdSolicited | wire::kNdOverride},
        .target = ends.peer};
    const wire::LinkAddressOption option{
        .type = static_cast<std::uint8_t>(wire::NdOption::TargetLinkAddress),
        .mac = ends.peer_mac};
    const Frame message = test::icmpv6(ends.peer, ip->header.source,
                                       test::as_bytes(answer) + test::as_bytes(option));
    test::V6 fields{.source = ends.peer, .destination = ip->header.source,
                    .next = wire::Protocol::Icmpv6};
    fields.hop_limit = 255;
    return to_stack(ends, EtherType::Ipv6, test::ipv6(fields, message));
}

Frame echo_request(const Ends& ends) {
    if (ends.stack.is_v4())
        return to_stack(ends, EtherType::Ipv4,
                        ip_packet(ends.peer, ends.stack, wire::Protocol::Icmp,
                                  test::echo_request_v4(1, {})));
    return to_stack(ends, EtherType::Ipv6,
                    ip_packet(ends.peer, ends.stack, wire::Protocol::Icmpv6,
                              test::echo_request_v6(ends.peer, ends.stack, {})));
}

bool answers_echo(const Frame& frame, const Ends& ends) {
    const auto link = wire::parse_link(frame);
    if (!link || link->type != type_of(ends) || link->vlan != ends.vlan) return false;
    const auto packet = std::span<const std::byte>(frame).subspan(link->bytes);
    std::span<const std::byte> message;
    std::uint8_t reply = 0;
    if (ends.stack.is_v4()) {
        const auto ip = wire::parse_ipv4(packet);
        if (!ip || ip->header.protocol != static_cast<std::uint8_t>(wire::Protocol::Icmp) ||
            ip->header.destination != ends.peer.v4_bits())
            return false;
        message = ip->payload;
        reply = static_cast<std::uint8_t>(wire::Icmpv4Type::EchoReply);
    } else {
        const auto ip = wire::parse_ipv6(packet);
        if (!ip || ip->header.next_header != static_cast<std::uint8_t>(wire::Protocol::Icmpv6) ||
            ip->header.destination != ends.peer)
            return false;
        message = ip->payload;
        reply = static_cast<std::uint8_t>(wire::Icmpv6Type::EchoReply);
    }
    return !message.empty() && static_cast<std::uint8_t>(message[0]) == reply;
}

std::string describe(const Heard& heard, const Flow& flow) {
    const std::uint32_t first = heard.sequence - flow.stack_isn.value_or(0);
    std::string text = flag_letters(heard.flags) + " " + std::to_string(first) + ":" +
                       std::to_string(first + heard.text.size());
    if ((heard.flags & wire::kAck) != 0)
        text += " ack " + std::to_string(heard.acknowledgment - flow.peer_isn);
    text += " win " + std::to_string(heard.window);
    if ((heard.flags & wire::kUrg) != 0) text += " urg " + std::to_string(heard.urgent);
    if (heard.ecn != 0) text += std::string(" ecn ") + (heard.ecn == 3   ? "ce"
                                                        : heard.ecn == 2 ? "ect0"
                                                                         : "ect1");
    std::string list;
    for (const Option& option : heard.options)
        list += (list.empty() ? "" : ",") + written(option, flow);
    if (!list.empty()) text += " <" + list + ">";
    return text;
}

std::string difference(const Segment& expected, const Heard& heard, const Ends& ends,
                       const Flow& flow) {
    std::string wrong;
    const auto differs = [&wrong](const std::string& what) { wrong += " " + what + ";"; };
    // PSH says little and is compared only where the script shows it.
    std::uint8_t told = 0xff;
    if ((expected.flags & wire::kPsh) == 0) told &= static_cast<std::uint8_t>(~wire::kPsh);
    if (expected.ack_flag_free) told &= static_cast<std::uint8_t>(~wire::kAck);
    if ((heard.flags & told) != (expected.flags & told)) differs("flags");
    if (heard.sequence - flow.stack_isn.value_or(0) != expected.first)
        differs("sequence");
    if (heard.text.size() != expected.length) differs("length");
    if (expected.ack && heard.acknowledgment - flow.peer_isn != *expected.ack) differs("ack");
    if (expected.window_least &&
        (heard.window < *expected.window_least || heard.window > *expected.window_most))
        differs("win");
    if (expected.urgent && heard.urgent != *expected.urgent) differs("urg");
    if (expected.ecn && heard.ecn != *expected.ecn) differs("ecn");
    if (!heard.checksums_right) differs("checksum");
    for (std::size_t i = 0; i < heard.text.size(); ++i) {
        if (heard.text[i] == text_byte(text_offset(expected.first, expected.flags) + i)) continue;
        differs("text at " + std::to_string(i));
        break;
    }
    return wrong + differing_options(expected, heard, ends, flow);
}

}  // namespace chiru::script
