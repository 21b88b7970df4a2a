// SPDX-License-Identifier: Apache-2.0
//
// UDP (RFC 768), as far as a host without UDP sockets must: a datagram that is sound is answered
// with port unreachable (RFC 1122 §4.1.3.1), one that is not is dropped.
#include "stack/ip/network.hpp"

#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/udp.hpp"

namespace chiru::ip {

Network::Fate Network::receive_udp(const Packet& packet, Instant now) {
    const auto udp = read_header<wire::UdpHeader>(packet.l4);
    if (!udp || udp->length < sizeof(wire::UdpHeader) || udp->length > packet.l4_bytes)
        return {Counter::InMalformed};
    const bool vouched = packet.frame != nullptr && (packet.frame->flags & kRxL4ChecksumGood) != 0;
    if (udp->checksum == 0) {
        if (packet.source.is_v6()) return {Counter::InBadChecksum};  // RFC 8200 §8.1
    } else if (!vouched) {
        Packet exact = packet;  // behind UDP's own length may be padding
        if (packet.chain == kNoPiece) exact.l4 = packet.l4.first(udp->length);
        if (packet.chain == kNoPiece) exact.l4_bytes = udp->length;
        if (transport_checksum(exact, true) != 0) return {Counter::InBadChecksum};
    }
    const bool v4 = packet.source.is_v4();
    const bool kept =
        v4 ? send_error(packet, static_cast<std::uint8_t>(wire::Icmpv4Type::Unreachable),
                        wire::kIcmpv4PortUnreachable, 0, now)
           : send_error(packet, static_cast<std::uint8_t>(wire::Icmpv6Type::Unreachable),
                        wire::kIcmpv6PortUnreachable, 0, now);
    return {Counter::InNoSocket, kept};
}

}  // namespace chiru::ip
