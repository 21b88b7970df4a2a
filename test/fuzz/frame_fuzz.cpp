// SPDX-License-Identifier: Apache-2.0
//
// Feeds a host whatever frames the fuzzer thinks of. Input: records of one byte of flags, two bytes
// of length (big-endian) and the frame. Flags: 1 the device vouches for the checksums, 2 the frame
// comes from kLocalPort, 4 the VLAN tag was stripped, 0xf0 eighths of a second that pass before it.
//
// Holds: every frame ends in one counter of group "in", every slot comes back in the end, and
// whatever the host sends can be placed.
#include "stack/ip/flow_hash.hpp"
#include "test/stack/ip/host.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

using namespace chiru;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

std::uint16_t flags_of(unsigned bits) {
    unsigned flags = 0;
    if ((bits & 1) != 0) flags |= kRxIpChecksumGood | kRxL4ChecksumGood;
    if ((bits & 2) != 0) flags |= kRxLocal;
    if ((bits & 4) != 0) flags |= kRxVlanStripped;
    return static_cast<std::uint16_t>(flags);
}

void look_at_sent(test::Host& host) {
    for (const test::Bytes& frame : host.sent()) ip::place(frame);
    host.sent_locally();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::byte> input = std::as_bytes(std::span(data, size));
    test::Host host;
    host.advance(std::chrono::seconds(2));
    host.learn_neighbors();
    const std::uint64_t before = host.count_in();
    std::uint64_t frames = 0;
    while (input.size() >= 3 && frames < 64) {
        const auto bits = std::to_integer<unsigned>(input[0]);
        const std::size_t wanted = std::to_integer<std::size_t>(input[1]) << 8 |
                                   std::to_integer<std::size_t>(input[2]);
        input = input.subspan(3);
        const std::size_t length = std::min({wanted, input.size(), std::size_t{1518}});
        const std::span<const std::byte> frame = input.first(length);
        input = input.subspan(length);
        host.advance(std::chrono::milliseconds(125 * (bits >> 4)));
        static_cast<void>(ip::place(frame));
        host.receive(test::Bytes(frame.begin(), frame.end()), flags_of(bits));
        ++frames;
        look_at_sent(host);
    }
    must(host.count_in() - before == frames);
    host.advance(std::chrono::minutes(2));
    must(host.held_slots() == 0);
    return 0;
}
