// SPDX-License-Identifier: Apache-2.0
//
// IGMP on the wire (RFC 2236, RFC 3376), and the group records of MLDv2 reports, which are alike
// (RFC 3810 §5.2).
#pragma once

#include "base/address.hpp"
#include "base/endian.hpp"

#include <cstddef>
#include <cstdint>

namespace chiru::wire {

enum class IgmpType : std::uint8_t {
    Query = 0x11,
    ReportV2 = 0x16,
    LeaveGroup = 0x17,
    ReportV3 = 0x22,
};

/// Queries of all versions, reports of the second.
struct IgmpHeader {
    std::uint8_t type = 0;
    std::uint8_t max_response = 0;
    be16 checksum{};
    be32 group{};
};
static_assert(sizeof(IgmpHeader) == 8 && alignof(IgmpHeader) == 1);

/// Sources follow.
struct IgmpV3Query {
    IgmpHeader header;
    std::uint8_t flags = 0;
    std::uint8_t query_interval = 0;
    be16 sources{};
};
static_assert(sizeof(IgmpV3Query) == 12 && alignof(IgmpV3Query) == 1);

/// Records follow.
struct IgmpV3Report {
    std::uint8_t type = static_cast<std::uint8_t>(IgmpType::ReportV3);
    std::uint8_t reserved = 0;
    be16 checksum{};
    be16 reserved1{};
    be16 count{};
};
static_assert(sizeof(IgmpV3Report) == 8 && alignof(IgmpV3Report) == 1);

enum class GroupRecordType : std::uint8_t {
    IsExclude = 2,
    ChangeToInclude = 3,
    ChangeToExclude = 4,
};

/// Of a report of either family: without sources, as all of ours are.
template <class Group>
struct GroupRecord {
    std::uint8_t type = 0;
    std::uint8_t aux_words = 0;
    be16 sources{};
    Group group{};
};
using GroupRecordV4 = GroupRecord<be32>;
using GroupRecordV6 = GroupRecord<IpAddress>;
static_assert(sizeof(GroupRecordV4) == 8 && alignof(GroupRecordV4) == 1);
static_assert(sizeof(GroupRecordV6) == 20 && alignof(GroupRecordV6) == 1);

/// What a query's Max Resp Code says (RFC 3376 §4.1.1): tenths of a second, from 128 on as a
/// floating-point number.
constexpr std::int64_t max_response_us(std::uint8_t code) {
    const std::int64_t mantissa = code & 0x0f;
    const int exponent = code >> 4 & 7;
    const std::int64_t tenths = code < 128 ? code : (mantissa | 0x10) << (exponent + 3);
    return tenths * 100'000;
}

inline constexpr IpAddress kAllHosts = IpAddress::v4(0xe000'0001);       ///< 224.0.0.1
inline constexpr IpAddress kAllRoutersV4 = IpAddress::v4(0xe000'0002);   ///< 224.0.0.2
inline constexpr IpAddress kIgmpRouters = IpAddress::v4(0xe000'0016);    ///< 224.0.0.22

}  // namespace chiru::wire
