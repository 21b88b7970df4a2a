// SPDX-License-Identifier: Apache-2.0
//
// What the per-packet arithmetic costs by itself: checksums and the receive hash.
#include "stack/ip/flow_hash.hpp"
#include "stack/wire/checksum.hpp"

#include <chrono>
#include <cstdio>
#include <vector>

using namespace chiru;

namespace {

template <class Work>
double nanoseconds(std::size_t rounds, Work&& work) {
    const auto start = std::chrono::steady_clock::now();
    std::uint32_t sink = 0;
    for (std::size_t i = 0; i < rounds; ++i) sink += work(i);
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
    asm volatile("" : : "r"(sink));  // the results count as used
    return spent.count() / static_cast<double>(rounds);
}

}  // namespace

int main() {
    std::vector<std::byte> bytes(65'536 + 64, std::byte{0x5a});
    for (const std::size_t length : {20u, 64u, 576u, 1460u, 8960u, 65'535u}) {
        const double ns = nanoseconds(30'000'000 / (length + 200), [&](std::size_t i) {
            return wire::checksum(std::span(bytes).subspan(i % 64, length));
        });
        std::printf("checksum    %6zu bytes  %8.1f ns  %6.1f GB/s\n", length, ns,
                    static_cast<double>(length) / ns);
    }
    for (const char* text : {"10.7.0.2", "fd07::2"}) {
        const IpAddress address = *IpAddress::parse(text);
        const double ns = nanoseconds(3'000'000, [&](std::size_t i) {
            return ip::flow_hash({address, static_cast<std::uint16_t>(i)}, {address, 80});
        });
        std::printf("flow_hash   %-12s  %8.1f ns\n", text, ns);
    }
}
