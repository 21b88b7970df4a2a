// SPDX-License-Identifier: Apache-2.0
#include "stack/wire/checksum.hpp"

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

/// Carries cannot be lost: 2^32 words of 32 bits fit into 64.
std::uint64_t sum_words(const std::byte* from, std::size_t bytes) {
    constexpr std::size_t kBlock = 32;
    std::array<std::uint64_t, 4> lanes{};
    for (; bytes >= kBlock; from += kBlock, bytes -= kBlock) {
        for (std::size_t i = 0; i < lanes.size(); ++i) {
            const auto word = load<std::uint64_t>(from + 8 * i);
            lanes[i] += (word & 0xffff'ffff) + (word >> 32);
        }
    }
    std::uint64_t sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
    for (; bytes >= 4; from += 4, bytes -= 4) sum += load<std::uint32_t>(from);
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
    const std::uint16_t sum = fold(sum_words(bytes.data(), bytes.size()));
    // At an odd offset every byte counts in the other half of its word (RFC 1071 §2(B)).
    sum_ += odd_ ? swap16(sum) : sum;
    odd_ ^= (bytes.size() & 1) != 0;
}

void ChecksumSum::add16(std::uint16_t value) { sum_ += network16(value); }

std::uint16_t ChecksumSum::sum() const { return network16(fold(sum_)); }

ChecksumSum pseudo_header(const IpAddress& source, const IpAddress& destination,
                          std::uint8_t protocol, std::size_t l4_bytes) {
    ChecksumSum sum;
    sum.add(std::as_bytes(source.wire()));
    sum.add(std::as_bytes(destination.wire()));
    sum.add32(static_cast<std::uint32_t>(l4_bytes));
    sum.add16(protocol);
    return sum;
}

}  // namespace chiru::wire
