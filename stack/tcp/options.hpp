// SPDX-License-Identifier: Apache-2.0
//
// Writing TCP options (RFC 9293 §3.2, RFC 7323, RFC 2018, RFC 7413), and what a SYN says.
#pragma once

#include "base/endian.hpp"
#include "stack/tcp/fast_open_cookie.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

namespace chiru::tcp {

inline constexpr std::size_t kMaxOptionBytes = 40;
inline constexpr std::uint32_t kFirstWindow = 65'535;  // what a SYN can say, unscaled

/// So that a window of twice the buffer can be told, for a client may ask for more later.
inline std::uint8_t shift_for(std::uint32_t buffer_bytes) {
    const auto bits = static_cast<unsigned>(std::bit_width((buffer_bytes - 1) / 32'768));
    return static_cast<std::uint8_t>(std::min(bits, 14u));
}

/// Writes options one behind the other.
class OptionWriter {
public:
    explicit OptionWriter(std::byte* at) : at_(at) {}
    void byte(unsigned value) { at_[size_++] = static_cast<std::byte>(value); }
    void word(std::uint32_t value) {
        const be32 wire(value);
        std::memcpy(at_ + size_, &wire, sizeof wire);
        size_ += sizeof wire;
    }
    std::size_t size() const { return size_; }

private:
    std::byte* at_;
    std::size_t size_ = 0;
};

/// What a SYN says: all we can do, or in an answer what of the peer's offer we take.
struct SynOptions {
    std::uint32_t mss = 0;
    std::optional<std::uint8_t> shift;
    bool sack = false;
    bool timestamps = false;
    std::uint32_t stamp = 0;
    std::uint32_t echo = 0;
    std::optional<FastOpenCookie> fast_open;
};
inline constexpr std::size_t kSynOptionBytes = 20;  // without Fast Open

inline void write_syn_options(OptionWriter& w, const SynOptions& o) {
    w.word(0x0204'0000u | o.mss);
    if (o.shift) w.word(0x0103'0300u | *o.shift);
    if (o.timestamps) {
        w.word(o.sack ? 0x0402'080au : 0x0101'080au);
        w.word(o.stamp);
        w.word(o.echo);
    } else if (o.sack) {
        w.word(0x0101'0402u);
    }
    if (!o.fast_open) return;
    // With 16 bytes, the most, all options together have 40.
    const unsigned bytes = 2u + o.fast_open->length;
    for (unsigned padding = (4 - bytes % 4) % 4; padding > 0; --padding) w.byte(1);
    w.byte(34);
    w.byte(bytes);
    for (const std::byte b : o.fast_open->span()) w.byte(std::to_integer<unsigned>(b));
}

}  // namespace chiru::tcp
