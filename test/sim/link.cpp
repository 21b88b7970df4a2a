// SPDX-License-Identifier: Apache-2.0
#include "test/sim/link.hpp"

#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"

#include <algorithm>
#include <cstring>

namespace chiru::sim {

namespace {

constexpr std::size_t kLinkBytes = sizeof(wire::EthernetHeader);
constexpr MacAddress kRouterMac{{2, 0, 0, 0, 0, 0xfe}};
constexpr std::size_t kQuotedBytes = 64;

bool is_v4(const Frame& frame) {
    return frame.size() >= kLinkBytes + sizeof(wire::Ipv4Header) && frame[12] == std::byte{0x08} &&
           frame[13] == std::byte{0};
}

bool is_v6(const Frame& frame) {
    return frame.size() >= kLinkBytes + sizeof(wire::Ipv6Header) && frame[12] == std::byte{0x86} &&
           frame[13] == std::byte{0xdd};
}

/// Link, network and ICMP header one behind the other, and what is quoted.
template <class Ip, class Icmp>
Frame assemble(const Frame& cause, wire::EtherType type, const Ip& ip, const Icmp& icmp,
               std::span<const std::byte> quoted) {
    wire::EthernetHeader link;
    std::memcpy(&link, cause.data(), sizeof link);
    const wire::EthernetHeader back{link.source, kRouterMac, static_cast<std::uint16_t>(type)};
    constexpr std::size_t kHeaders = sizeof back + sizeof ip + sizeof icmp;
    Frame frame(kHeaders + quoted.size());
    std::memcpy(frame.data(), &back, sizeof back);
    std::memcpy(frame.data() + sizeof back, &ip, sizeof ip);
    std::memcpy(frame.data() + sizeof back + sizeof ip, &icmp, sizeof icmp);
    std::memcpy(frame.data() + kHeaders, quoted.data(), quoted.size());
    return frame;
}

Frame too_big_v4(const Frame& frame, std::size_t mtu) {
    const auto cause = *read_header<wire::Ipv4Header>(std::span(frame).subspan(kLinkBytes));
    if ((cause.fragment & wire::kIpv4DontFragment) == 0) return {};
    const auto packet = std::span(frame).subspan(kLinkBytes);
    const auto quoted = packet.first(std::min(packet.size(), sizeof cause + kQuotedBytes));
    wire::Icmpv4Header icmp;
    icmp.type = static_cast<std::uint8_t>(wire::Icmpv4Type::Unreachable);
    icmp.code = wire::kIcmpv4FragmentationNeeded;
    icmp.word1 = static_cast<std::uint16_t>(mtu);
    wire::ChecksumSum sum;
    sum.add(std::as_bytes(std::span(&icmp, 1)));
    sum.add(quoted);
    icmp.checksum = sum.checksum();
    wire::Ipv4Header ip;
    ip.total_length = static_cast<std::uint16_t>(sizeof ip + sizeof icmp + quoted.size());
    ip.ttl = 64;
    ip.protocol = static_cast<std::uint8_t>(wire::Protocol::Icmp);
    ip.source = 0x0a07'00feu;
    ip.destination = cause.source;
    ip.checksum = wire::checksum(std::as_bytes(std::span(&ip, 1)));
    return assemble(frame, wire::EtherType::Ipv4, ip, icmp, quoted);
}

Frame too_big_v6(const Frame& frame, std::size_t mtu) {
    const auto cause = *read_header<wire::Ipv6Header>(std::span(frame).subspan(kLinkBytes));
    const auto packet = std::span(frame).subspan(kLinkBytes);
    const auto quoted = packet.first(std::min(packet.size(), sizeof cause + kQuotedBytes));
    wire::Icmpv6Header icmp;
    icmp.type = static_cast<std::uint8_t>(wire::Icmpv6Type::PacketTooBig);
    icmp.word = static_cast<std::uint32_t>(mtu);
    IpAddress::Bytes router{0xfd, 0x07};
    router[15] = 0xfe;
    wire::Ipv6Header ip;
    ip.next_header = static_cast<std::uint8_t>(wire::Protocol::Icmpv6);
    ip.payload_length = static_cast<std::uint16_t>(sizeof icmp + quoted.size());
    ip.hop_limit = 64;
    ip.source = IpAddress(router);
    ip.destination = cause.source;
    auto sum = wire::pseudo_header(ip.source, ip.destination, ip.next_header,
                                   sizeof icmp + quoted.size());
    sum.add(std::as_bytes(std::span(&icmp, 1)));
    sum.add(quoted);
    icmp.checksum = sum.checksum();
    return assemble(frame, wire::EtherType::Ipv6, ip, icmp, quoted);
}

}  // namespace

bool mark_congestion(Frame& frame) {
    if (is_v4(frame)) {
        auto ip = *read_header<wire::Ipv4Header>(std::span(frame).subspan(kLinkBytes));
        if ((ip.tos & 3) == 0) return false;
        ip.tos |= 3;
        ip.checksum = std::uint16_t{0};
        ip.checksum = wire::checksum(std::as_bytes(std::span(&ip, 1)));
        std::memcpy(frame.data() + kLinkBytes, &ip, sizeof ip);
        return true;
    }
    if (!is_v6(frame) || (frame[kLinkBytes + 1] & std::byte{0x30}) == std::byte{0}) return false;
    frame[kLinkBytes + 1] |= std::byte{0x30};
    return true;
}

Frame packet_too_big(const Frame& frame, std::size_t mtu) {
    if (is_v4(frame)) return too_big_v4(frame, mtu);
    if (is_v6(frame)) return too_big_v6(frame, mtu);
    return {};
}

bool Link::lost() {
    ++sent_;
    if (cut_) return true;
    if (std::ranges::find(options_.lose_nth, sent_) != options_.lose_nth.end()) return true;
    if (options_.burst_begins_ppm != 0) {
        in_burst_ = in_burst_ ? !happens(options_.burst_ends_ppm)
                              : happens(options_.burst_begins_ppm);
        if (in_burst_ && happens(options_.burst_lose_ppm)) return true;
    }
    return happens(options_.lose_ppm);
}

bool Link::refused(const Frame& frame) {
    if (options_.mtu == 0 || frame.size() <= kLinkBytes + options_.mtu) return false;
    if (!options_.silent && back_)
        if (Frame answer = packet_too_big(frame, options_.mtu); !answer.empty())
            back_(std::move(answer));
    return true;
}

void Link::send(Frame frame, Instant now) {
    if (lost() || refused(frame)) {
        ++lost_;
        return;
    }
    const std::size_t copies = happens(options_.duplicate_ppm) ? 2 : 1;
    if (happens(options_.corrupt_ppm)) {
        const auto bit = static_cast<std::size_t>(below(frame.size() * 8));
        frame[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    for (std::size_t i = 0; i < copies; ++i) carry(frame, now);
}

// The bottleneck first, then the way.
void Link::carry(Frame frame, Instant now) {
    Instant leaves = now;
    if (options_.bits_per_second != 0) {
        const Micros backlog = busy_until_ > now ? busy_until_ - now : Micros(0);
        const auto queued =
            static_cast<std::uint64_t>(backlog.count()) * options_.bits_per_second / 8'000'000;
        if (queued + frame.size() > options_.queue_bytes) {
            ++lost_;
            ++overflowed_;
            return;
        }
        longest_queue_ = std::max(longest_queue_, queued);
        if (queued > options_.mark_bytes && mark_congestion(frame)) ++marked_;
        const auto takes = frame.size() * 8'000'000 / options_.bits_per_second;
        leaves = std::max(busy_until_, now) + Micros(static_cast<std::int64_t>(takes));
        busy_until_ = leaves;
    }
    Micros extra(below(static_cast<std::uint64_t>(options_.jitter.count()) + 1));
    if (happens(options_.late_ppm)) extra += options_.late_by;
    flying_.push({leaves + options_.delay + extra, order_++, std::move(frame)});
}

}  // namespace chiru::sim
