// SPDX-License-Identifier: Apache-2.0
//
// What the stack itself has to send: ARP, neighbour discovery, echo replies, ICMP errors. A job is
// a short head, held inline, and perhaps the bytes of receive slots behind it.
//
//   free -> urgent list (ARP, ND) or normal list (ICMP) -> sent -> free
//                                     |  ^
//                                     v  | the neighbour's address became known
//                          waiting list of a neighbour
//
// The last quarter of the jobs is kept for ARP and ND, and those leave first: a host that is busy
// answering pings still resolves and is resolved.
#pragma once

#include "base/address.hpp"
#include "stack/ip/slots.hpp"
#include "stack/lower.hpp"
#include "stack/wire/ethernet.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

inline constexpr std::uint32_t kNoJob = ~0u;
inline constexpr std::size_t kControlJobs = 512;
inline constexpr std::size_t kUrgentReserve = kControlJobs / 4;
/// Of the others, so many may wait for neighbours: hosts that do not answer must not keep what
/// answers all others need.
inline constexpr std::size_t kParkedJobs = kControlJobs / 4;
inline constexpr std::size_t kInlineBytes = 192;

enum class JobKind : std::uint8_t {
    Frame,    ///< an Ethernet payload to `mac`, on `interface`
    Packet,   ///< an IP packet's payload, to be routed to `remote`, in fragments if it must be
    Segment,  ///< a TCP segment of `remote`'s, by kLocalPort to the shard its flow belongs to
};

struct Job {
    std::uint32_t next = kNoJob;
    JobKind kind{};
    std::uint8_t protocol = 0;
    IpOptions options;
    std::uint16_t interface = 0;
    std::uint16_t head_bytes = 0;
    MacAddress mac;           ///< Frame: destination
    wire::EtherType type{};   ///< Frame
    IpAddress local;          ///< Packet: source
    IpAddress remote;
    Path path;
    std::uint32_t first_piece = kNoPiece;
    std::uint32_t piece_bytes = 0;  ///< how many bytes of the pieces belong to the packet
    std::uint32_t sent_bytes = 0;   ///< of head and pieces, in fragments that went out already
    std::uint32_t fragment_id = 0;
    std::array<std::byte, kInlineBytes> head{};

    std::size_t bytes() const { return std::size_t{head_bytes} + piece_bytes; }
};

class ControlQueue {
public:
    ControlQueue(std::span<Job> table, Pieces& pieces);

    /// A fresh job, or kNoJob. The caller fills it in and pushes it.
    std::uint32_t take(bool urgent);
    void push(std::uint32_t job, bool urgent);
    /// Puts a chain of jobs that waited at the end of the normal list.
    void push_chain(std::uint32_t first, std::uint32_t last);
    /// Ends a job; its slots are released.
    void finish(std::uint32_t job);

    bool empty() const { return urgent_.first == kNoJob && normal_.first == kNoJob; }
    /// Takes the next to be sent, urgent ones first, off its list; only if not empty().
    std::uint32_t pop();
    /// Puts a job from the normal list back: it has more frames to send.
    void put_back(std::uint32_t job);

    Job& operator[](std::uint32_t index) { return table_[index]; }

    /// Copies bytes [from, from + into.size()) of the job's packet.
    void copy(const Job& job, std::size_t from, std::span<std::byte> into) const;

private:
    struct List {
        std::uint32_t first = kNoJob;
        std::uint32_t last = kNoJob;
    };
    void append(List& list, std::uint32_t first, std::uint32_t last);

    std::span<Job> table_;
    Pieces& pieces_;
    List urgent_;
    List normal_;
    std::uint32_t free_ = kNoJob;
    std::size_t free_count_ = 0;
};

}  // namespace chiru::ip
