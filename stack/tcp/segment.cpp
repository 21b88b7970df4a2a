// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/segment.hpp"

#include <algorithm>

namespace chiru::tcp {

namespace {

using wire::TcpOption;

std::uint32_t load32(std::span<const std::byte> bytes, std::size_t at) {
    be32 value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

void read_sack(Segment& seg, std::span<const std::byte> body) {
    seg.sack_count = static_cast<std::uint8_t>(std::min(body.size() / 8, seg.sack.size()));
    for (std::size_t i = 0; i < seg.sack_count; ++i)
        seg.sack[i] = {Seq(load32(body, 8 * i)), Seq(load32(body, 8 * i + 4))};
}

/// RFC 7413 §2: none, which asks for one, or an even number from 4 to 16.
constexpr bool valid_cookie_bytes(std::size_t bytes) {
    return bytes == 0 || (bytes >= 4 && bytes <= 16 && bytes % 2 == 0);
}

// An option of the wrong length is ignored, as an unknown one is (RFC 9293 §3.1).
void read_option(Segment& seg, TcpOption kind, std::span<const std::byte> body) {
    switch (kind) {
        case TcpOption::Mss:
            if (body.size() != 2) return;
            seg.mss = static_cast<std::uint16_t>(std::to_integer<unsigned>(body[0]) << 8 |
                                                 std::to_integer<unsigned>(body[1]));
            seg.has_mss = seg.mss != 0;  // none is no wish, and so the default
            return;
        case TcpOption::WindowScale:
            if (body.size() != 1) return;
            seg.has_shift = true;
            seg.shift = std::min<std::uint8_t>(std::to_integer<std::uint8_t>(body[0]), 14);
            return;
        case TcpOption::SackPermitted: seg.sack_permitted = body.empty(); return;
        case TcpOption::Sack: read_sack(seg, body); return;
        case TcpOption::Timestamps:
            if (body.size() != 8) return;
            seg.has_timestamps = true;
            seg.ts_value = load32(body, 0);
            seg.ts_echo = load32(body, 4);
            return;
        case TcpOption::FastOpen:
            // "Options with invalid length values, or without the SYN flag set, MUST be ignored."
            if (!seg.has(wire::kSyn) || !valid_cookie_bytes(body.size())) return;
            seg.has_fast_open = true;
            seg.cookie = body;
            return;
        default: return;
    }
}

}  // namespace

std::optional<Segment> Segment::parse(std::span<const std::byte> l4) {
    const auto header = read_header<wire::TcpHeader>(l4);
    if (!header) return std::nullopt;
    const auto options = wire::options_of(*header, l4);
    if (!options) return std::nullopt;

    Segment seg;
    seg.seq = Seq(header->sequence);
    seg.ack = Seq(header->acknowledgment);
    seg.wnd = header->window;
    seg.source_port = header->source_port;
    seg.destination_port = header->destination_port;
    seg.flags = header->flags;
    seg.text = l4.subspan(header->length_bytes());

    // Nearly every segment carries timestamps alone, laid out as RFC 7323 appendix A recommends.
    if (options->size() == 12 && load32(*options, 0) == 0x0101'080a) {
        seg.has_timestamps = true;
        seg.ts_value = load32(*options, 4);
        seg.ts_echo = load32(*options, 8);
        return seg;
    }
    const auto visit = [&seg](TcpOption kind, std::span<const std::byte> body) {
        read_option(seg, kind, body);
    };
    if (!wire::for_each_option(*options, visit)) return std::nullopt;
    return seg;
}

}  // namespace chiru::tcp
