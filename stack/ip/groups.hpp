// SPDX-License-Identifier: Apache-2.0
//
// The multicast groups that sockets have joined, and what routers and switches are to be told of
// them: IGMPv3 (RFC 3376), IGMPv2 while a querier of that version is about (RFC 2236), MLDv2
// (RFC 3810). Every shard knows the groups, since their datagrams may arrive at any; shard 0 alone
// reports. The solicited-node groups of our own addresses are discovery.cpp's.
//
// Only whole groups are joined, none by source: a state-change report says CHANGE_TO_EXCLUDE of
// nobody, and CHANGE_TO_INCLUDE of nobody when the last member left. Each is sent twice.
#pragma once

#include "base/address.hpp"
#include "stack/ip/interface.hpp"
#include "stack/table_carver.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

inline constexpr std::size_t kGroups = 256;  ///< of one stack
/// RFC 3376 §8.1 and RFC 3810 §9.1: reports are told so often, against loss.
inline constexpr std::uint8_t kRobustness = 2;

struct Group {
    IpAddress address;
    std::uint16_t interface = 0;
    std::uint16_t members = 0;        ///< sockets; 0 and nothing left to tell: the record is free
    std::uint8_t changes_left = 0;    ///< state-change reports still to send
    bool answer = false;              ///< a query asked: a current-state report is due
    std::int64_t report_at_us = kNeverUs;

    bool in_use() const { return members != 0 || changes_left != 0; }
};

class GroupTable {
public:
    explicit GroupTable(TableCarver& carver) : table_(carver.take<Group>(kGroups)) {}
    static void measure(TableCarver& carver) { carver.take<Group>(kGroups); }

    std::span<Group> records() { return table_; }
    bool has(std::uint16_t interface, const IpAddress& group) const;
    bool has(const IpAddress& group) const;
    /// One member more; nullptr: the table is full.
    Group* join(std::uint16_t interface, const IpAddress& group);
    /// One member less; the record if that was the last one.
    Group* leave(std::uint16_t interface, const IpAddress& group);
    /// Reports of the group are due then.
    void schedule(Group& group, std::int64_t report_at_us) {
        group.report_at_us = report_at_us;
        next_us_ = std::min(next_us_, report_at_us);
    }
    /// Nothing is due before. Every turn asks, so it is known without a look at the groups.
    std::int64_t next_us() const { return next_us_; }
    /// Looks for it, after reports were made.
    void find_next();

private:
    Group* find(std::uint16_t interface, const IpAddress& group);

    std::span<Group> table_;
    std::int64_t next_us_ = kNeverUs;
    std::size_t live_ = 0;  ///< with members: nobody searches an empty table
};

}  // namespace chiru::ip
