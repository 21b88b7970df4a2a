// SPDX-License-Identifier: Apache-2.0
//
// Cuts a frame that its port was asked to cut (kTxSegment) where the port cannot: a large send
// passes the stack once, and for each segment only what differs is made, headers and checksums. A
// driver claims PortConfig::tso_bytes and does this last of all, as a device with TSO would.
#pragma once

#include "stack/frame.hpp"

#include <cstddef>
#include <cstdint>

namespace chiru {

class Segmenter {
public:
    /// `frame` has kTxSegment set, and outlives this.
    explicit Segmenter(const TxFrame& frame);

    /// How many segments it makes; at most kMaxTxSegments.
    std::size_t count() const { return (text_bytes_ + step_ - 1) / step_; }

    /// Writes the next one; false: there is none left. `segment` has been lent memory for headers
    /// and for text that the frame has in its head. Its slices are parts of the frame's, under
    /// their names: each segment refers to a record once more for the stack (Stack::hold()).
    bool next(TxFrame& segment);

private:
    void write_headers(TxFrame& segment, std::size_t text_bytes) const;
    void place_text(TxFrame& segment, std::size_t bytes);
    void finish_checksum(TxFrame& segment, std::size_t text_bytes) const;

    const TxFrame& frame_;
    std::size_t header_bytes_;
    std::size_t text_bytes_;
    std::size_t step_;             ///< text of a segment
    std::size_t done_ = 0;         ///< text in the segments before
    std::size_t slice_ = 0;        ///< the frame's, that the next text lies in
    std::uint32_t slice_done_ = 0;
    std::uint16_t pseudo_sum_;     ///< as the stack left it: without a length
};

}  // namespace chiru
