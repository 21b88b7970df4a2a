// SPDX-License-Identifier: Apache-2.0
#include "test/sim/watch.hpp"

#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"

#include <string_view>

namespace chiru::sim {

namespace {

constexpr auto kTcp = static_cast<std::uint8_t>(wire::Protocol::Tcp);

}  // namespace

std::optional<SeenSegment> see_segment(const Frame& frame) {
    const auto link = wire::parse_link(frame);
    if (!link) return std::nullopt;
    const auto packet = std::span(frame).subspan(link->bytes);
    IpAddress source, destination;
    std::span<const std::byte> l4;
    if (link->type == wire::EtherType::Ipv4) {
        const auto ip = wire::parse_ipv4(packet);
        if (!ip || ip->header.protocol != kTcp || ip->header.is_fragment()) return std::nullopt;
        if (wire::checksum(packet.first(ip->header.header_bytes())) != 0) return std::nullopt;
        source = IpAddress::v4(ip->header.source);
        destination = IpAddress::v4(ip->header.destination);
        l4 = ip->payload;
    } else if (link->type == wire::EtherType::Ipv6) {
        const auto ip = wire::parse_ipv6(packet);
        if (!ip || ip->header.next_header != kTcp) return std::nullopt;
        source = ip->header.source;
        destination = ip->header.destination;
        l4 = ip->payload;
    } else {
        return std::nullopt;
    }
    auto sum = wire::pseudo_header(source, destination, kTcp, l4.size());
    sum.add(l4);
    const auto seg = tcp::Segment::parse(l4);
    if (sum.checksum() != 0 || !seg) return std::nullopt;
    return SeenSegment{{source, seg->source_port}, {destination, seg->destination_port}, *seg};
}

std::string to_text(const Frame& frame) {
    const auto s = see_segment(frame);
    if (!s) return std::to_string(frame.size()) + " bytes of something else";
    std::string text = s->source.to_string() + " > " + s->destination.to_string() + " ";
    constexpr std::string_view kLetters = "FSRPAUEC";
    for (std::size_t i = 0; i < kLetters.size(); ++i)
        if ((s->seg.flags >> i & 1) != 0) text += kLetters[i];
    const auto number = [&text](const char* name, std::size_t value) {
        text += std::string(" ") + name + " " + std::to_string(value);
    };
    number("seq", s->seg.seq.raw());
    number("ack", s->seg.ack.raw());
    number("win", s->seg.wnd);
    number("text", s->seg.text.size());
    for (std::size_t i = 0; i < s->seg.sack_count; ++i)
        text += " sack " + std::to_string(s->seg.sack[i].first.raw()) + ":" +
                std::to_string(s->seg.sack[i].end.raw());
    if (s->seg.has_timestamps)
        text += " ts " + std::to_string(s->seg.ts_value) + " " + std::to_string(s->seg.ts_echo);
    return text;
}

void Watch::syn(Side& side, const SeenSegment& s) {
    if (side.has_promise && side.first == s.seg.seq) return;
    side = {};
    side.first = s.seg.seq;
    side.shift = s.seg.shift;
    side.scales = s.seg.has_shift;
}

const Watch::Side* Watch::find(const Endpoint& from, const Endpoint& to) const {
    const auto found = sides_.find(key(from, to));
    return found == sides_.end() ? nullptr : &found->second;
}

tcp::Seq Watch::edge_of(const SeenSegment& s) const {
    const Side* own = find(s.source, s.destination);
    const Side* peer = find(s.destination, s.source);
    const bool scaled = own != nullptr && peer != nullptr && own->scales && peer->scales &&
                        !s.seg.has(wire::kSyn);
    return s.seg.ack + (s.seg.wnd << (scaled ? own->shift : 0));
}

void Watch::sent(const Frame& frame) {
    const auto s = see_segment(frame);
    if (!s || s->seg.has(wire::kRst)) return;
    Side& side = sides_[key(s->source, s->destination)];
    if (s->seg.has(wire::kSyn)) syn(side, *s);
    if (!s->seg.text.empty() && side.has_edge &&
        s->seg.seq + static_cast<std::uint32_t>(s->seg.text.size()) > side.edge && fault_.empty())
        fault_ = "text beyond the window: " + to_text(frame);
    if (!s->seg.has(wire::kAck)) return;
    const tcp::Seq edge = edge_of(*s);
    if (side.has_promise && edge < side.promise && fault_.empty())
        fault_ = "the window was taken back: " + to_text(frame) + ", had offered up to " +
                 std::to_string(side.promise.raw());
    if (!side.has_promise || edge > side.promise) side.promise = edge;
    side.has_promise = true;
}

void Watch::arrived(const Frame& frame) {
    const auto s = see_segment(frame);
    if (!s || s->seg.has(wire::kRst) || !s->seg.has(wire::kAck)) return;
    const tcp::Seq edge = edge_of(*s);
    Side& side = sides_[key(s->destination, s->source)];
    if (!side.has_edge || edge > side.edge) side.edge = edge;
    side.has_edge = true;
}

}  // namespace chiru::sim
