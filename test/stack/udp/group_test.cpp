// SPDX-License-Identifier: Apache-2.0
//
// Datagrams to groups, and how hosts tell routers of them.
#include "shm/control.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/igmp.hpp"
#include "stack/wire/ipv4.hpp"
#include "test/stack/udp/wire.hpp"

using namespace chiru;
using namespace chiru::test;
using namespace std::chrono_literals;

TEST_CASE("a datagram to a group reaches every member of it, in one slot", "[udp][rfc1112]") {
    const bool v6 = GENERATE(false, true);
    Wire wire;
    const IpAddress group = *IpAddress::parse(v6 ? "ff05::abc" : "239.1.2.3");
    const IpAddress any = v6 ? IpAddress() : kAnyV4;
    const auto sender = wire.left.open({any, 1000});
    wire.right.open({any, 53}, shm::kBindReuseAddress);
    wire.right.open({group, 53}, shm::kBindReuseAddress);
    wire.left.send(sender, {group, 53}, pattern(600));
    wire.run();
    CHECK(wire.right.received.empty());  // nobody joined
    auto& stack = wire.right.host.stack();
    REQUIRE(stack.join_group(group, 0, wire.now) == std::uint16_t{1});
    wire.left.send(sender, {group, 53}, pattern(600));
    wire.run();
    REQUIRE(wire.right.received.size() == 2);
    for (const Received& got : wire.right.received) CHECK(got.bytes == pattern(600));
    CHECK(wire.right.received[0].ttl == 1);
    CHECK(wire.right.host.slots_out() == 1);
    wire.right.release(wire.right.received[0]);
    CHECK(wire.right.host.slots_out() == 1);  // the other still reads it
    wire.right.release(wire.right.received[1]);
    CHECK(wire.right.host.slots_out() == 0);
    wire.right.received.clear();
    stack.leave_group(group, 0, wire.now);
    wire.left.send(sender, {group, 53}, pattern(600));
    wire.run();
    CHECK(wire.right.received.empty());
    wire.require_home();
}

TEST_CASE("members of a sender's own host hear it, unless it asks not to", "[udp]") {
    Wire wire;
    const IpAddress group = *IpAddress::parse("239.1.2.3");
    const auto sender = wire.left.open({kAnyV4, 1000});
    wire.left.open({kAnyV4, 53});
    REQUIRE(wire.left.host.stack().join_group(group, 0, wire.now));
    wire.run(3s);
    wire.seen.clear();
    wire.left.send(sender, {group, 53}, pattern(2000));
    wire.run();
    REQUIRE(wire.left.received.size() == 1);
    CHECK(wire.left.received[0].bytes == pattern(2000));
    CHECK(wire.seen.size() == 2);
    wire.left.send(sender, {group, 53}, pattern(20), shm::kNoLoop);
    wire.run();
    CHECK(wire.left.received.size() == 1);
    CHECK(wire.seen.size() == 3);
    wire.require_home();
}

TEST_CASE("joining and leaving is reported by IGMPv3, twice each", "[udp][rfc3376]") {
    Wire wire;
    const IpAddress group = *IpAddress::parse("239.1.2.3");
    const auto reports = [&](wire::GroupRecordType type) {
        std::size_t count = 0;
        for (const sim::Frame& frame : wire.seen) {
            constexpr std::size_t kIgmp = sizeof(wire::EthernetHeader) + 24;
            if (frame.size() < kIgmp + 16) continue;
            const auto ip = *read_header<wire::Ipv4Header>(std::span(frame).subspan(14));
            if (ip.protocol != 2 || ip.ttl != 1) continue;
            CHECK(IpAddress::v4(ip.destination) == wire::kIgmpRouters);
            CHECK(wire::checksum(std::span(frame).subspan(kIgmp)) == 0);
            CHECK(wire::checksum(std::span(frame).subspan(14, 24)) == 0);
            const auto record =
                *read_header<wire::GroupRecordV4>(std::span(frame).subspan(kIgmp + 8));
            if (record.type == static_cast<std::uint8_t>(type) &&
                IpAddress::v4(record.group) == group)
                ++count;
        }
        wire.seen.clear();
        return count;
    };
    auto& stack = wire.left.host.stack();
    REQUIRE(stack.join_group(group, 0, wire.now));
    REQUIRE(stack.join_group(group, 0, wire.now));  // a second member: nothing new
    wire.run(5s);
    CHECK(reports(wire::GroupRecordType::ChangeToExclude) == 2);
    stack.leave_group(group, 0, wire.now);
    wire.run(5s);
    CHECK(reports(wire::GroupRecordType::ChangeToInclude) == 0);
    stack.leave_group(group, 0, wire.now);
    wire.run(5s);
    CHECK(reports(wire::GroupRecordType::ChangeToInclude) == 2);
}
