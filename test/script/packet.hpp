// SPDX-License-Identifier: Apache-2.0
//
// Segments of the notation as frames, and frames as segments of the notation.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "test/script/notation.hpp"
#include "test/stack/ip/frames.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace chiru::script {

using Frame = test::Bytes;

/// The two hosts of a script: the one under test, and the peer that the player speaks for.
struct Ends {
    MacAddress stack_mac;
    MacAddress peer_mac;
    IpAddress stack;
    IpAddress peer;
    std::uint16_t vlan = 0;

    std::uint32_t header_bytes() const { return stack.is_v4() ? 40 : 60; }
};

/// One pair of ports, and where the two sequence spaces begin. The peer's begins shortly before
/// the numbers wrap, so that every script crosses that point.
struct Flow {
    std::uint16_t stack_port = 0;
    std::uint16_t peer_port = 0;
    std::optional<std::uint32_t> stack_isn;
    std::uint32_t peer_isn = 0xffff'ff00;
    std::uint32_t last_timestamp = 0;  ///< the newest that the stack sent
    std::string last_cookie;           ///< the same, of TCP Fast Open; in hex digits
};

/// A segment that the stack sent, not yet compared with anything.
struct Heard {
    std::uint16_t stack_port = 0;
    std::uint16_t peer_port = 0;
    std::uint8_t flags = 0;
    std::uint8_t ecn = 0;
    std::uint32_t sequence = 0;
    std::uint32_t acknowledgment = 0;
    std::uint32_t window = 0;
    std::uint32_t urgent = 0;
    std::vector<std::byte> text;
    std::optional<std::uint32_t> timestamp;
    std::optional<std::uint32_t> echo;
    std::vector<Option> options;  ///< SACK blocks are absolute numbers here
    bool checksums_right = false;
};

/// The frame of a segment that the peer sends. Throws std::runtime_error for an unknown option.
Frame frame_of(const Segment& segment, const Ends& ends, const Flow& flow);

/// The frame of an ICMP error from the peer's address.
Frame frame_of(const IcmpError& error, const Ends& ends, const Flow& flow);

/// A TCP segment from the stack to the peer; nothing if the frame is anything else.
std::optional<Heard> heard_in(const Frame& frame, const Ends& ends);

/// What the stack asks for by ARP or neighbour discovery before it can speak to the peer.
std::optional<Frame> neighbor_answer(const Frame& frame, const Ends& ends);

/// An echo request from the peer, and whether a frame is the stack's answer to it. Frames are taken
/// in order, so by then the stack has taken all that was sent before.
Frame echo_request(const Ends& ends);
bool answers_echo(const Frame& frame, const Ends& ends);

/// Where `heard` is not what was expected; empty if it is.
std::string difference(const Segment& expected, const Heard& heard, const Ends& ends,
                       const Flow& flow);

/// In the notation, for messages.
std::string describe(const Heard& heard, const Flow& flow);

/// The text that either side sends is a pattern: the byte at an offset of the stream.
inline std::byte text_byte(std::uint64_t offset) { return static_cast<std::byte>(offset % 251); }

}  // namespace chiru::script
