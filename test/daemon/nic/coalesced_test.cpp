// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/coalesced.hpp"

#include "stack/tcp/segment.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/tcp.hpp"

#include <catch2/catch.hpp>

#include <cstring>
#include <vector>

using namespace chiru;
using daemon::nic::CoalescedFrame;

namespace {

constexpr std::size_t kRoom = 2048;

template <class T>
void append(std::vector<std::byte>& frame, const T& header) {
    const auto bytes = std::as_bytes(std::span(&header, 1));
    frame.insert(frame.end(), bytes.begin(), bytes.end());
}

/// A frame with `text` bytes of a pattern, as a device hands over what it has coalesced.
std::vector<std::byte> frame_with(std::size_t text, bool v6, bool tagged, std::uint8_t flags) {
    std::vector<std::byte> frame;
    wire::EthernetHeader ethernet{};
    const auto type = v6 ? wire::EtherType::Ipv6 : wire::EtherType::Ipv4;
    ethernet.type = static_cast<std::uint16_t>(tagged ? wire::EtherType::Vlan : type);
    append(frame, ethernet);
    if (tagged) append(frame, wire::VlanTag{7, static_cast<std::uint16_t>(type)});
    const std::size_t l4 = sizeof(wire::TcpHeader) + text;
    if (v6) {
        wire::Ipv6Header ip{};
        ip.payload_length = static_cast<std::uint16_t>(l4);
        ip.next_header = 6;
        append(frame, ip);
    } else {
        wire::Ipv4Header ip{};
        ip.total_length = static_cast<std::uint16_t>(sizeof ip + l4);
        ip.protocol = 6;
        ip.ttl = 64;
        append(frame, ip);
    }
    wire::TcpHeader tcp{};
    tcp.sequence = 0xffff'f000u;
    tcp.data_offset = 5 << 4;
    tcp.flags = flags;
    append(frame, tcp);
    for (std::size_t i = 0; i < text; ++i) frame.push_back(static_cast<std::byte>(i % 251));
    frame.resize(std::max<std::size_t>(frame.size(), 60));
    return frame;
}

/// The piece as its buffer would hold it.
std::vector<std::byte> piece_of(const std::vector<std::byte>& whole, const CoalescedFrame& cut,
                                std::size_t piece) {
    std::vector<std::byte> made(cut.header_bytes());
    cut.write_headers(piece, made);
    const auto* text = whole.data() + cut.text_at(piece);
    made.insert(made.end(), text, text + cut.text_bytes(piece));
    return made;
}

}  // namespace

TEST_CASE("A coalesced frame is cut into segments that say the same", "[nic][lro]") {
    const bool v6 = GENERATE(false, true), tagged = GENERATE(false, true);
    const std::size_t text = GENERATE(0u, 1u, 1400u, 1994u, 5000u, 60'000u);
    const auto whole = frame_with(text, v6, tagged, wire::kAck | wire::kPsh | wire::kCwr);
    const std::size_t headers = 54u + (v6 ? 20 : 0) + (tagged ? 4 : 0);
    const auto cut =
        CoalescedFrame::parse(std::span(whole).first(headers), whole.size(), kRoom);
    REQUIRE(cut);
    std::vector<std::byte> together;
    for (std::size_t i = 0; i < cut->pieces(); ++i) {
        const auto piece = piece_of(whole, *cut, i);
        REQUIRE(piece.size() <= kRoom);
        const auto link = wire::parse_link(piece);
        REQUIRE(link);
        const auto packet = std::span(piece).subspan(link->bytes);
        std::span<const std::byte> l4;
        if (v6) {
            const auto ip = wire::parse_ipv6(packet);
            REQUIRE(ip);
            l4 = ip->payload;
        } else {
            const auto ip = wire::parse_ipv4(packet);
            REQUIRE(ip);
            CHECK(wire::checksum(packet.first(sizeof(wire::Ipv4Header))) == 0);
            l4 = ip->payload;
        }
        const auto seg = tcp::Segment::parse(l4);
        REQUIRE(seg);
        CHECK(seg->seq == tcp::Seq(0xffff'f000u) + static_cast<std::uint32_t>(together.size()));
        CHECK(seg->has(wire::kPsh) == (i + 1 == cut->pieces()));
        CHECK(seg->has(wire::kCwr) == (i == 0));
        together.insert(together.end(), seg->text.begin(), seg->text.end());
    }
    REQUIRE(together.size() == text);
    for (std::size_t i = 0; i < text; ++i)
        if (together[i] != static_cast<std::byte>(i % 251)) FAIL("byte " << i);
}

TEST_CASE("What is no whole TCP segment is not cut", "[nic][lro]") {
    const auto refused = [](std::vector<std::byte> frame, std::size_t first = 54) {
        return !CoalescedFrame::parse(std::span(frame).first(first), frame.size(), kRoom);
    };
    const auto good = frame_with(5000, false, false, wire::kAck);
    CHECK_FALSE(refused(good));
    CHECK(refused(good, 13));
    CHECK(refused(good, 33));
    CHECK(refused(good, 53));
    const auto with = [&](std::size_t at, unsigned value) {
        auto frame = good;
        frame[at] = static_cast<std::byte>(value);
        return frame;
    };
    CHECK(refused(with(12, 0x86)));       // another protocol
    CHECK(refused(with(14, 0x55)));       // version
    CHECK(refused(with(14, 0x44)));       // header length
    CHECK(refused(with(16, 0xff)));       // longer than the frame
    CHECK(refused(with(20, 0x20)));       // a fragment
    CHECK(refused(with(23, 17)));         // UDP
    CHECK(refused(with(46, 0x40)));       // TCP's header length
    CHECK(refused(with(46, 0xf0)));       // longer than what is there
    auto shorter = with(16, 0);           // than its headers
    shorter[17] = std::byte{30};
    CHECK(refused(shorter));
}

TEST_CASE("The largest packet makes a known number of pieces", "[nic][lro]") {
    const auto whole = frame_with(65'475, false, true, wire::kAck);
    const auto cut = CoalescedFrame::parse(std::span(whole).first(58), whole.size(), kRoom);
    REQUIRE(cut);
    CHECK(cut->pieces() <= daemon::nic::most_pieces(kRoom));
    CHECK(daemon::nic::most_pieces(kRoom) <= 64);
}
