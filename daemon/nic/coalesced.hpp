// SPDX-License-Identifier: Apache-2.0
//
// A TCP frame that a device put together from several (LRO), larger than a receive buffer: how it
// is cut into frames that fit one each. Its segments are copied, and counted as such by the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

struct rte_mbuf;
struct rte_mempool;

namespace chiru::daemon::nic {

class CoalescedFrame {
public:
    /// `first` holds at least the headers of a frame of `frame_bytes`. Nothing if it is no TCP over
    /// IPv4 or IPv6 without fragments and extension headers, or contradicts itself; `room` is what
    /// a buffer can hold.
    static std::optional<CoalescedFrame> parse(std::span<const std::byte> first,
                                               std::size_t frame_bytes, std::size_t room);

    std::size_t pieces() const;
    /// Where the text of a piece lies in the coalesced frame, and how much it is.
    std::size_t text_at(std::size_t piece) const { return headers_.size() + piece * most_; }
    std::size_t text_bytes(std::size_t piece) const;
    std::size_t header_bytes() const { return headers_.size(); }
    /// The headers as they stand in front of that piece. The TCP checksum is left as it is: the
    /// device has verified the text.
    void write_headers(std::size_t piece, std::span<std::byte> to) const;

private:
    std::span<const std::byte> headers_;  ///< of the coalesced frame
    std::size_t ip_at_ = 0;
    std::size_t tcp_at_ = 0;
    std::size_t text_ = 0;  ///< bytes
    std::size_t most_ = 0;  ///< of them in a piece
    bool v6_ = false;
};

/// The largest frame, cut into buffers of `room` bytes, makes so many.
std::size_t most_pieces(std::size_t room);

/// Copies a chain of segments into buffers of `pool`, of `room` bytes each: the frame as it is if
/// it fits one, else cut. Returns how many there are; 0: no memory, or no frame that can be cut.
std::size_t copy_chain(const rte_mbuf& chain, rte_mempool* pool, std::size_t room,
                       std::span<rte_mbuf*> pieces);

}  // namespace chiru::daemon::nic
