// SPDX-License-Identifier: Apache-2.0
#include "stack/wire/checksum.hpp"

#include "stack/wire/sum_lanes.hpp"

#include <array>
#include <cstring>

namespace chiru::wire {
namespace {

template <class Word>
Word load(const std::byte* from) {
    Word word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

constexpr std::uint16_t swap16(std::uint16_t value) { return __builtin_bswap16(value); }

/// To or from the machine's order, whichever is at hand.
constexpr std::uint16_t network16(std::uint16_t value) {
    return std::endian::native == std::endian::little ? swap16(value) : value;
}

constexpr std::uint16_t fold(std::uint64_t sum) {
    sum = (sum & 0xffff'ffff) + (sum >> 32);
    sum = (sum & 0xffff'ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(sum);
}

/// Blocks of sum_lanes() for vectors of 16 bytes, and of 32: what is shorter is not worth a call.
constexpr std::size_t kShortBlock = 64;
constexpr std::size_t kLongBytes = 128;

std::uint64_t sum_long(const std::byte* from, std::size_t bytes) {
    return sum_lanes<16>(from, bytes / kShortBlock);  // as every x86-64 and every ARMv8 has them
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] std::uint64_t sum_long_avx2(const std::byte* from, std::size_t bytes) {
    return sum_lanes<32>(from, bytes / kLongBytes);
}

/// false until it is known, which does no harm.
const bool has_avx2 = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
}();
#endif

/// Of words in the machine's order.
std::uint64_t sum_words(const std::byte* from, std::size_t bytes) {
    std::uint64_t sum = 0;
    if (bytes >= kLongBytes) {
        const std::size_t whole = bytes / kLongBytes * kLongBytes;
#if defined(__x86_64__)
        sum = has_avx2 ? sum_long_avx2(from, whole) : sum_long(from, whole);
#else
        sum = sum_long(from, whole);
#endif
        from += whole;
        bytes -= whole;
    }
    if (bytes >= kShortBlock) {
        sum += sum_lanes<16>(from, 1);
        from += kShortBlock;
        bytes -= kShortBlock;
    }
    for (; bytes >= 8; from += 8, bytes -= 8) {
        const auto word = load<std::uint64_t>(from);
        sum += (word & 0xffff'ffff) + (word >> 32);
    }
    if (bytes >= 4) {
        sum += load<std::uint32_t>(from);
        from += 4;
        bytes -= 4;
    }
    if (bytes >= 2) {
        sum += load<std::uint16_t>(from);
        from += 2;
        bytes -= 2;
    }
    if (bytes == 1) {
        const std::array<std::byte, 2> last{*from, std::byte{0}};
        sum += load<std::uint16_t>(last.data());
    }
    return sum;
}

}  // namespace

void ChecksumSum::add(std::span<const std::byte> bytes) {
    const std::uint64_t sum = sum_words(bytes.data(), bytes.size());
    // At an odd offset every byte counts in the other half of its word (RFC 1071 §2(B)).
    sum_ += odd_ ? swap16(fold(sum)) : sum;
    odd_ ^= (bytes.size() & 1) != 0;
}

std::uint16_t ChecksumSum::sum() const { return network16(fold(sum_)); }

}  // namespace chiru::wire
