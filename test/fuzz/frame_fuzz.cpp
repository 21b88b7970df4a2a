// SPDX-License-Identifier: Apache-2.0
//
// Feeds a host whatever frames the fuzzer thinks of. Input: records of one byte of flags, two bytes
// of length (big-endian) and the frame. Flags: 1 the device vouches for the checksums, 2 the frame
// comes from kLocalPort, 4 the VLAN tag was stripped, 0xf0 eighths of a second that pass before it.
//
// Holds: every frame ends in one counter of group "in", every slot comes back in the end, and
// whatever the host sends can be placed.
#include "stack/ip/flow_hash.hpp"
#include "test/fuzz/input.hpp"
#include "test/stack/ip/host.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

using namespace chiru;

namespace {

constexpr std::size_t kLargestFrame = 1518;

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
    fuzz::Input input(data, size);
    test::Host host;
    host.advance(std::chrono::seconds(2));
    host.learn_neighbors();
    const std::uint64_t before = host.count_in();
    std::uint64_t frames = 0;
    while (!input.empty() && frames < 64) {
        const unsigned bits = input.byte();
        const std::span<const std::byte> frame =
            input.bytes(std::min<std::size_t>(input.word(), kLargestFrame));
        host.advance(std::chrono::milliseconds(125 * (bits >> 4)));
        static_cast<void>(ip::place(frame));
        host.receive(test::Bytes(frame.begin(), frame.end()), flags_of(bits));
        ++frames;
        look_at_sent(host);
    }
    fuzz::must(host.count_in() - before == frames, "not every frame has its one counter");
    host.advance(std::chrono::minutes(2));
    fuzz::must(host.held_slots() == 0, "slots are held though nothing waits");
    return 0;
}
