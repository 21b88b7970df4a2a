// SPDX-License-Identifier: Apache-2.0
//
// What a large frame is cut into: segments that, taken apart again, say what it said.
#include "stack/segmenter.hpp"

#include "stack/wire/checksum.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/tcp.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <vector>

using namespace chiru;

namespace {

using Bytes = std::vector<std::byte>;

constexpr std::size_t kOptionBytes = 12;

struct Shape {
    bool v4 = true;
    std::uint8_t l2_bytes = 14;
    std::uint16_t flags = 0;  ///< what the port completes: TxFlag bits
    std::uint8_t tcp_flags = wire::kAck | wire::kPsh;
    std::uint16_t segment_bytes = 1000;
    std::size_t in_head = 0;  ///< text behind the headers
    std::vector<std::uint32_t> slices;
};

/// A large frame as the stack makes one, and the text it carries.
struct Large {
    explicit Large(const Shape& shape) : arena(70'000), head(4'096) {
        for (std::size_t i = 0; i < arena.size(); ++i)
            arena[i] = static_cast<std::byte>(i * 7 + i / 256);
        frame.lend(head.data(), static_cast<std::uint16_t>(head.size()));
        frame.port = 3;
        frame.vlan_tci = 42;
        frame.flags = static_cast<std::uint16_t>(shape.flags | kTxSegment |
                                                 (shape.v4 ? 0 : kTxIpv6));
        frame.segment_bytes = shape.segment_bytes;
        frame.l2_bytes = shape.l2_bytes;
        frame.l3_bytes = shape.v4 ? 20 : 40;
        frame.l4_bytes = 20 + kOptionBytes;
        std::fill_n(head.begin(), shape.l2_bytes, std::byte{0x11});
        std::byte* ip = head.data() + frame.l2_bytes;
        if (shape.v4) {
            const wire::Ipv4Header header{.tos = 2, .id = 0xffff, .ttl = 64, .protocol = 6,
                                          .source = source.v4_bits(),
                                          .destination = destination.v4_bits()};
            std::memcpy(ip, &header, sizeof header);
        } else {
            source = *IpAddress::parse("fd07::1");
            destination = *IpAddress::parse("fd07::2");
            const wire::Ipv6Header header{.version_class_flow = 0x6000'0000u, .next_header = 6,
                                          .hop_limit = 64, .source = source,
                                          .destination = destination};
            std::memcpy(ip, &header, sizeof header);
        }
        wire::TcpHeader tcp{};
        tcp.source_port = std::uint16_t{80};
        tcp.sequence = 0xffff'fff0u;
        tcp.data_offset = (20 + kOptionBytes) / 4 << 4;
        tcp.flags = shape.tcp_flags;
        tcp.checksum = wire::pseudo_header(source, destination, 6, 0).sum();
        std::memcpy(ip + frame.l3_bytes, &tcp, sizeof tcp);
        std::byte* text_at = ip + frame.l3_bytes + frame.l4_bytes;
        std::memcpy(text_at, arena.data(), shape.in_head);
        frame.head_length = static_cast<std::uint16_t>(text_at + shape.in_head - head.data());
        text.assign(arena.begin(), arena.begin() + static_cast<std::ptrdiff_t>(shape.in_head));
        std::uint64_t at = shape.in_head;
        for (const std::uint32_t length : shape.slices) {
            frame.slices[frame.slice_count] = {arena.data() + at, {at, length, shm::kTxArena, 0},
                                               SendRecord{frame.slice_count}};
            ++frame.slice_count;
            text.insert(text.end(), arena.begin() + static_cast<std::ptrdiff_t>(at),
                        arena.begin() + static_cast<std::ptrdiff_t>(at + length));
            at += length;
        }
    }

    Bytes arena;
    Bytes head;
    Bytes text;
    TxFrame frame;
    IpAddress source = IpAddress::v4(0x0a07'0001);
    IpAddress destination = IpAddress::v4(0x0a07'0002);
};

Bytes whole(const TxFrame& frame) {
    Bytes bytes(frame.head, frame.head + frame.head_length);
    for (std::size_t i = 0; i < frame.slice_count; ++i)
        bytes.insert(bytes.end(), frame.slices[i].data,
                     frame.slices[i].data + frame.slices[i].slice.length);
    return bytes;
}

void check_ip(const Large& large, const Bytes& bytes, std::size_t number) {
    const auto packet = std::span(bytes).subspan(large.frame.l2_bytes);
    if ((large.frame.flags & kTxIpv6) != 0) {
        const auto header = *read_header<wire::Ipv6Header>(packet);
        CHECK(header.payload_length + 40u == packet.size());
        return;
    }
    const auto header = *read_header<wire::Ipv4Header>(packet);
    CHECK(header.total_length == packet.size());
    CHECK(header.id == static_cast<std::uint16_t>(0xffff + number));
    if ((large.frame.flags & kTxIpChecksum) == 0) CHECK(wire::checksum(packet.first(20)) == 0);
}

/// Cuts it, and looks at every segment.
void check_cut(const Shape& shape) {
    const Large large(shape);
    Segmenter segments(large.frame);
    const std::size_t count = segments.count();
    CHECK(count == (large.text.size() + shape.segment_bytes - 1) / shape.segment_bytes);
    Bytes memory(4'096);
    Bytes text;
    TxFrame segment;
    for (std::size_t number = 0; number < count; ++number) {
        segment.lend(memory.data(), static_cast<std::uint16_t>(memory.size()));
        REQUIRE(segments.next(segment));
        CHECK(segment.port == 3);
        CHECK(segment.vlan_tci == 42);
        CHECK(segment.flags == (large.frame.flags & ~kTxSegment));
        const Bytes bytes = whole(segment);
        check_ip(large, bytes, number);
        const std::size_t l4 = std::size_t{segment.l2_bytes} + segment.l3_bytes;
        const auto tcp = *read_header<wire::TcpHeader>(std::span(bytes).subspan(l4));
        CHECK(tcp.sequence == 0xffff'fff0u + static_cast<std::uint32_t>(text.size()));
        const bool last = number + 1 == count;
        std::uint8_t flags = shape.tcp_flags;
        if (!last) flags &= static_cast<std::uint8_t>(~(wire::kFin | wire::kPsh));
        if (number > 0) flags &= static_cast<std::uint8_t>(~wire::kCwr);
        CHECK(tcp.flags == flags);
        auto sum = wire::pseudo_header(large.source, large.destination, 6, bytes.size() - l4);
        if ((shape.flags & kTxL4Checksum) != 0) {
            CHECK(tcp.checksum == sum.sum());
        } else {
            sum.add(std::span(bytes).subspan(l4));
            CHECK(sum.checksum() == 0);
        }
        text.insert(text.end(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(l4 + segment.l4_bytes),
                    bytes.end());
        for (std::size_t i = 0; i < segment.slice_count; ++i) {
            const TxSlice& part = segment.slices[i];
            CHECK(part.data == large.arena.data() + part.slice.offset);
            CHECK(static_cast<std::uint32_t>(part.record) < large.frame.slice_count);
        }
    }
    CHECK_FALSE(segments.next(segment));
    CHECK(text == large.text);
}

}  // namespace

TEST_CASE("A frame that is cut says the same in segments", "[segmenter]") {
    for (const bool v4 : {true, false}) {
        for (const unsigned offloads : {0u, unsigned{kTxIpChecksum}, unsigned{kTxL4Checksum},
                                        unsigned{kTxIpChecksum | kTxL4Checksum}}) {
            const auto flags = static_cast<std::uint16_t>(offloads);
            check_cut({.v4 = v4, .flags = flags, .slices = {16'000}});
            check_cut({.v4 = v4, .flags = flags, .slices = {1'001}});
            check_cut({.v4 = v4, .l2_bytes = 18, .flags = flags, .segment_bytes = 1'448,
                       .slices = {1, 2'999, 3, 1'448, 7'001}});
        }
    }
}

TEST_CASE("Slices of odd lengths do not shift a cut frame's checksums", "[segmenter]") {
    for (std::uint32_t first = 1; first < 70; ++first)
        check_cut({.segment_bytes = 536, .slices = {first, 301, 2'000, 77 + first, 1, 1, 1, 999}});
}

TEST_CASE("Text behind the headers of a cut frame goes into the first segments", "[segmenter]") {
    check_cut({.in_head = 2'100, .slices = {}});
    check_cut({.in_head = 1'500, .slices = {3'000}});
    check_cut({.in_head = 1, .slices = {4'000}});
}

TEST_CASE("A cut frame's FIN and PSH are the last segment's, its CWR the first one's",
          "[segmenter][rfc3168]") {
    check_cut({.tcp_flags = wire::kAck | wire::kFin | wire::kPsh | wire::kCwr,
               .slices = {3'500}});
}
