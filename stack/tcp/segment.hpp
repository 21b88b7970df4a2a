// SPDX-License-Identifier: Apache-2.0
//
// A segment that arrived, as a value (RFC 9293 §3.3.1, the SEG variables).
#pragma once

#include "stack/tcp/connection.hpp"
#include "stack/tcp/seq.hpp"
#include "stack/wire/tcp.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::tcp {

struct Segment {
    Seq seq;
    Seq ack;
    std::uint32_t wnd = 0;  ///< as sent, still scaled
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;
    std::uint8_t flags = 0;  ///< wire::TcpFlag bits
    std::uint8_t shift = 0;  ///< window scale, at most 14 (RFC 7323 §2.3)
    std::uint8_t sack_count = 0;
    bool has_mss = false;
    bool has_shift = false;
    bool sack_permitted = false;
    bool has_timestamps = false;
    bool has_fast_open = false;  ///< only of a SYN (RFC 7413 §4.1.1)
    std::uint16_t mss = 0;
    std::uint32_t ts_value = 0;
    std::uint32_t ts_echo = 0;
    std::array<SackBlock, 4> sack;  ///< the first sack_count, as the peer wrote them
    std::span<const std::byte> cookie;  ///< if has_fast_open; empty: a request for one
    std::span<const std::byte> text;

    bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
    /// SEG.LEN: SYN and FIN count as one each.
    std::uint32_t length() const {
        return static_cast<std::uint32_t>(text.size()) + (has(wire::kSyn) ? 1u : 0u) +
               (has(wire::kFin) ? 1u : 0u);
    }
    Seq end() const { return seq + length(); }

    /// Forgets the first `bytes` of the text, which must not carry a SYN.
    void trim_front(std::uint32_t bytes) {
        text = text.subspan(bytes);
        seq += bytes;
    }
    /// Keeps only the first `bytes` of the text; a FIN behind them goes too.
    void keep_front(std::uint32_t bytes) {
        if (bytes >= text.size()) return;
        text = text.first(bytes);
        flags = static_cast<std::uint8_t>(flags & ~wire::kFin);
    }

    /// Nothing if the data offset or the option list contradicts itself.
    static std::optional<Segment> parse(std::span<const std::byte> l4);
};

}  // namespace chiru::tcp
