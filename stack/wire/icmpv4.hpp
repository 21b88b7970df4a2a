// SPDX-License-Identifier: Apache-2.0
//
// ICMP for IPv4 (RFC 792, RFC 1122 §3.2.2, RFC 1191).
#pragma once

#include "base/endian.hpp"

#include <cstddef>
#include <cstdint>

namespace chiru::wire {

enum class Icmpv4Type : std::uint8_t {
    EchoReply = 0,
    Unreachable = 3,
    SourceQuench = 4,
    Redirect = 5,
    Echo = 8,
    TimeExceeded = 11,
    ParameterProblem = 12,
};

enum Icmpv4Unreachable : std::uint8_t {
    kIcmpv4NetUnreachable = 0,
    kIcmpv4HostUnreachable = 1,
    kIcmpv4ProtocolUnreachable = 2,
    kIcmpv4PortUnreachable = 3,
    kIcmpv4FragmentationNeeded = 4,
};

/// The reassembly timer ran out (Icmpv4Type::TimeExceeded).
inline constexpr std::uint8_t kIcmpv4ReassemblyTime = 1;

struct Icmpv4Header {
    std::uint8_t type = 0;
    std::uint8_t code = 0;
    be16 checksum{};
    be16 word0{};  ///< Echo: identifier. Errors: 0
    be16 word1{};  ///< Echo: sequence number. FragmentationNeeded: MTU of the next hop
};
static_assert(sizeof(Icmpv4Header) == 8 && alignof(Icmpv4Header) == 1);

/// Does it quote a packet of ours?
constexpr bool is_icmpv4_error(std::uint8_t type) {
    switch (static_cast<Icmpv4Type>(type)) {
    case Icmpv4Type::Unreachable:
    case Icmpv4Type::SourceQuench:
    case Icmpv4Type::Redirect:
    case Icmpv4Type::TimeExceeded:
    case Icmpv4Type::ParameterProblem: return true;
    default: return false;
    }
}

}  // namespace chiru::wire
