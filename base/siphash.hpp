// SPDX-License-Identifier: Apache-2.0
//
// SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash that a peer who chooses the input
// cannot steer. Initial sequence numbers, SYN cookies and the connection table use it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace chiru {

struct SipKey {
    std::uint64_t k0 = 0;
    std::uint64_t k1 = 0;
};

namespace siphash_detail {

struct State {
    std::uint64_t v0, v1, v2, v3;

    void round() {
        v0 += v1;
        v1 = std::rotl(v1, 13) ^ v0;
        v0 = std::rotl(v0, 32);
        v2 += v3;
        v3 = std::rotl(v3, 16) ^ v2;
        v0 += v3;
        v3 = std::rotl(v3, 21) ^ v0;
        v2 += v1;
        v1 = std::rotl(v1, 17) ^ v2;
        v2 = std::rotl(v2, 32);
    }
};

}  // namespace siphash_detail

inline std::uint64_t siphash(const SipKey& key, std::span<const std::byte> data) {
    siphash_detail::State s{key.k0 ^ 0x736f'6d65'7073'6575, key.k1 ^ 0x646f'7261'6e64'6f6d,
                            key.k0 ^ 0x6c79'6765'6e65'7261, key.k1 ^ 0x7465'6462'7974'6573};
    const auto absorb = [&s](std::uint64_t word) {
        s.v3 ^= word;
        s.round();
        s.round();
        s.v0 ^= word;
    };
    std::uint64_t word = 0;
    std::span<const std::byte> rest = data;
    for (; rest.size() >= 8; rest = rest.subspan(8)) {
        std::memcpy(&word, rest.data(), 8);
        absorb(word);
    }
    word = std::uint64_t{data.size()} << 56;
    for (std::size_t i = 0; i < rest.size(); ++i)
        word |= std::to_integer<std::uint64_t>(rest[i]) << (8 * i);
    absorb(word);
    s.v2 ^= 0xff;
    for (int i = 0; i < 4; ++i) s.round();
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

}  // namespace chiru
