// SPDX-License-Identifier: Apache-2.0
#include "stack/wire/checksum.hpp"
#include "stack/wire/sum_lanes.hpp"

#include <catch2/catch.hpp>

#include <cstring>
#include <random>
#include <vector>

using namespace chiru;

namespace {

/// RFC 1071 §4.1, word for word.
std::uint16_t plain_checksum(const std::vector<std::byte>& bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        sum += std::to_integer<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t count) {
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
}

}  // namespace

TEST_CASE("The checksum of RFC 1071's example is as printed there", "[wire][rfc1071]") {
    const std::vector<std::byte> bytes{std::byte{0x00}, std::byte{0x01}, std::byte{0xf2},
                                       std::byte{0x03}, std::byte{0xf4}, std::byte{0xf5},
                                       std::byte{0xf6}, std::byte{0xf7}};
    wire::ChecksumSum sum;
    sum.add(bytes);
    CHECK(sum.sum() == 0xddf2);
    CHECK(sum.checksum() == 0x220d);
}

TEST_CASE("Checksums of every length and alignment equal the plain ones", "[wire][rfc1071]") {
    std::mt19937_64 random(1);
    bool equal = true;
    for (std::size_t length = 0; length < 2100; ++length) {
        for (std::size_t skip = 0; skip < (length < 600 ? 33u : 3u); ++skip) {
            const auto bytes = random_bytes(random, length + skip);
            const std::vector<std::byte> part(bytes.begin() + static_cast<std::ptrdiff_t>(skip),
                                              bytes.end());
            equal &= wire::checksum(std::span(bytes).subspan(skip)) == plain_checksum(part);
        }
    }
    CHECK(equal);
}

TEST_CASE("Vectors of every width add up the same words", "[wire][rfc1071]") {
    std::mt19937_64 random(3);
    for (const std::size_t blocks : {1u, 2u, 7u, 255u}) {
        const auto bytes = random_bytes(random, blocks * 256);
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < bytes.size(); i += 4) {
            std::uint32_t word;
            std::memcpy(&word, bytes.data() + i, sizeof word);
            sum += word;
        }
        CHECK(wire::sum_lanes<16>(bytes.data(), 4 * blocks) == sum);
        CHECK(wire::sum_lanes<32>(bytes.data(), 2 * blocks) == sum);
        CHECK(wire::sum_lanes<64>(bytes.data(), blocks) == sum);
    }
}

TEST_CASE("Pieces of odd length add up to the whole", "[wire][rfc1071]") {
    std::mt19937_64 random(2);
    for (int round = 0; round < 500; ++round) {
        const auto bytes = random_bytes(random, 1 + random() % 3000);
        wire::ChecksumSum sum;
        for (std::size_t at = 0; at < bytes.size();) {
            const std::size_t part = std::min<std::size_t>(1 + random() % 97, bytes.size() - at);
            sum.add(std::span(bytes).subspan(at, part));
            at += part;
        }
        CHECK(sum.checksum() == plain_checksum(bytes));
    }
}

TEST_CASE("All ones do not lose a carry", "[wire][rfc1071]") {
    const std::vector<std::byte> bytes(65'535, std::byte{0xff});
    CHECK(wire::checksum(bytes) == plain_checksum(bytes));
}

TEST_CASE("A checksum updated in place equals one computed anew", "[wire][rfc1624]") {
    std::mt19937_64 random(3);
    for (int round = 0; round < 1000; ++round) {
        auto bytes = random_bytes(random, 40);
        const std::uint16_t before = wire::checksum(bytes);
        const auto old_word = static_cast<std::uint16_t>(
            std::to_integer<unsigned>(bytes[8]) << 8 | std::to_integer<unsigned>(bytes[9]));
        const auto new_word = static_cast<std::uint16_t>(random());
        bytes[8] = static_cast<std::byte>(new_word >> 8);
        bytes[9] = static_cast<std::byte>(new_word);
        CHECK(wire::checksum_update(before, old_word, new_word) == wire::checksum(bytes));
    }
}

TEST_CASE("The pseudo header of IPv4 and IPv6 is summed as RFC 9293 says", "[wire][rfc9293]") {
    const auto four = wire::pseudo_header(*IpAddress::parse("1.2.3.4"),
                                          *IpAddress::parse("5.6.7.8"), 6, 20);
    CHECK(four.sum() == 0x0102 + 0x0304 + 0x0506 + 0x0708 + 6 + 20);
    const auto six = wire::pseudo_header(*IpAddress::parse("fd00::1"),
                                         *IpAddress::parse("::2"), 58, 0x10001);
    CHECK(six.sum() == 0xfd00 + 1 + 2 + 1 + 1 + 58);
}
