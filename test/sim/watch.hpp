// SPDX-License-Identifier: Apache-2.0
//
// Looks at every frame on the wire and holds both ends to what only shows there: text lies within
// the window that had reached its sender, and a window once offered is not taken back
// (RFC 9293 §3.8.6).
#pragma once

#include "base/address.hpp"
#include "stack/tcp/segment.hpp"
#include "test/sim/link.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>

namespace chiru::sim {

/// A frame that holds a TCP segment whose checksum is right.
struct SeenSegment {
    Endpoint source;
    Endpoint destination;
    tcp::Segment seg;
};
std::optional<SeenSegment> see_segment(const Frame& frame);

/// One line for people: "10.7.0.1:40000 > 10.7.0.2:80 PA seq 1 ack 2 win 3 text 4".
std::string to_text(const Frame& frame);

class Watch {
public:
    void sent(const Frame& frame);
    void arrived(const Frame& frame);
    /// Empty, or the first rule that was broken.
    const std::string& fault() const { return fault_; }

private:
    /// What one end sends.
    struct Side {
        tcp::Seq first;  ///< of its SYN
        std::uint8_t shift = 0;
        bool scales = false;
        bool has_edge = false;
        tcp::Seq edge;      ///< it may send up to here, as it was told
        bool has_promise = false;
        tcp::Seq promise;   ///< up to here it has offered to receive
    };
    using Key = std::tuple<IpAddress, std::uint16_t, IpAddress, std::uint16_t>;
    static Key key(const Endpoint& from, const Endpoint& to) {
        return {from.address, from.port, to.address, to.port};
    }

    const Side* find(const Endpoint& from, const Endpoint& to) const;
    tcp::Seq edge_of(const SeenSegment& s) const;
    void syn(Side& side, const SeenSegment& s);

    std::map<Key, Side> sides_;  ///< by sender and receiver
    std::string fault_;
};

}  // namespace chiru::sim
