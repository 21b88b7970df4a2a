// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/tcp_info.hpp"

#include "shm/tables.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

// Not <netinet/tcp.h>: its tcp_info ends where the kernel's of 2007 did.
#include <linux/tcp.h>
#include <netinet/in.h>

namespace chiru::posix {

namespace {

/// Linux's numbers of the states, in the order of TcpState.
std::uint8_t linux_state(shm::TcpState state) {
    // Free, Listen, SynSent, SynReceived, Established, FinWait1, FinWait2, CloseWait, Closing,
    // LastAck, TimeWait, Closed
    constexpr std::array<std::uint8_t, 12> kNumbers{7, 10, 2, 3, 1, 4, 5, 8, 11, 9, 6, 7};
    const auto i = static_cast<std::size_t>(state);
    return i < kNumbers.size() ? kNumbers[i] : kNumbers[0];
}

std::uint8_t linux_recovery(std::uint8_t state) {
    switch (static_cast<shm::RecoveryState>(state)) {
        case shm::RecoveryState::Open: return TCP_CA_Open;
        case shm::RecoveryState::Fast: return TCP_CA_Recovery;
        case shm::RecoveryState::AfterTimeout: return TCP_CA_Loss;
        case shm::RecoveryState::Reduced: return TCP_CA_CWR;
    }
    return TCP_CA_Open;
}

std::uint8_t linux_options(std::uint8_t negotiated, std::uint8_t fast_open) {
    unsigned options = 0;
    if ((negotiated & shm::kNegotiatedTimestamps) != 0) options |= TCPI_OPT_TIMESTAMPS;
    if ((negotiated & shm::kNegotiatedSack) != 0) options |= TCPI_OPT_SACK;
    if ((negotiated & shm::kNegotiatedWindowScale) != 0) options |= TCPI_OPT_WSCALE;
    if ((negotiated & shm::kNegotiatedEcn) != 0) options |= TCPI_OPT_ECN;
    if ((fast_open & shm::kFastOpenTaken) != 0) options |= TCPI_OPT_SYN_DATA;
    return static_cast<std::uint8_t>(options);
}

std::uint32_t low(std::uint64_t value) { return static_cast<std::uint32_t>(value); }

/// What a full segment makes of an IP packet.
std::uint32_t packet_bytes(const shm::ConnectionInfo& info) {
    const bool stamps = (info.negotiated & shm::kNegotiatedTimestamps) != 0;
    return info.mss + (info.remote_address.is_v4() ? 40u : 60u) + (stamps ? 12u : 0u);
}

tcp_info told_of(const shm::ConnectionInfo& info) {
    const std::uint32_t mss = info.mss == 0 ? 1 : info.mss;
    tcp_info told{};
    told.tcpi_state = linux_state(info.state);
    told.tcpi_ca_state = linux_recovery(info.recovery);
    told.tcpi_retransmits = info.timeouts;
    told.tcpi_backoff = told.tcpi_retransmits;
    told.tcpi_options = linux_options(info.negotiated, info.fast_open);
    const unsigned fail = unsigned{info.fast_open} >> shm::kFastOpenFailShift;
    told.tcpi_fastopen_client_fail = fail & 3u;
    told.tcpi_snd_wscale = info.snd_shift & 15;
    told.tcpi_rcv_wscale = info.rcv_shift & 15;
    told.tcpi_rto = info.rto_us;
    told.tcpi_snd_mss = info.mss;
    told.tcpi_pmtu = packet_bytes(info);
    told.tcpi_rcv_mss = info.mss;
    told.tcpi_unacked = (info.snd_nxt - info.snd_una + mss - 1) / mss;
    told.tcpi_rtt = info.srtt_us;
    told.tcpi_rttvar = info.rttvar_us;
    told.tcpi_snd_ssthresh = info.ssthresh_bytes / mss;
    told.tcpi_snd_cwnd = info.cwnd_bytes / mss;
    told.tcpi_advmss = info.mss;
    // The window follows twice what the reader takes in a round trip.
    told.tcpi_rcv_space = info.rcv_buffer_bytes / 2;
    told.tcpi_rcv_ssthresh = info.rcv_buffer_bytes;
    told.tcpi_total_retrans = info.retransmitted_segments;
    told.tcpi_pacing_rate = info.pacing_kbps == 0 ? ~std::uint64_t{0}
                                                  : std::uint64_t{info.pacing_kbps} * 1000;
    told.tcpi_bytes_received = info.rx_bytes;
    told.tcpi_bytes_acked = info.tx_bytes - (info.snd_nxt - info.snd_una);
    told.tcpi_segs_out = low(info.tx_segments);
    told.tcpi_segs_in = low(info.rx_segments);
    told.tcpi_notsent_bytes = info.unsent_bytes();
    told.tcpi_min_rtt = info.min_rtt_us;
    told.tcpi_delivery_rate = std::uint64_t{info.delivery_kbps} * 1000;
    told.tcpi_bytes_sent = info.tx_bytes + info.retransmitted_bytes;
    told.tcpi_bytes_retrans = info.retransmitted_bytes;
    told.tcpi_rcv_ooopack = info.out_of_order_segments;
    told.tcpi_snd_wnd = info.snd_wnd;
    return told;
}

}  // namespace

int get_tcp_info(Socket& socket, void* value, socklen_t* length) {
    const auto info = socket.channel().info(*socket.chiru());
    tcp_info told{};
    told.tcpi_state = linux_state(shm::TcpState::Closed);
    if (info) told = told_of(*info);
    told.tcpi_max_pacing_rate = socket.options().max_pacing_rate();
    // Linux 6.2 appended tcpi_rcv_wnd and tcpi_rehash; the headers at hand may be older.
    constexpr std::size_t kReceiveWindow = offsetof(tcp_info, tcpi_snd_wnd) + 4;
    std::array<std::byte, std::max(sizeof told, kReceiveWindow + 8)> bytes{};
    std::memcpy(bytes.data(), &told, sizeof told);
    if (info) std::memcpy(bytes.data() + kReceiveWindow, &info->rcv_wnd, sizeof info->rcv_wnd);
    return store_option(bytes.data(), bytes.size(), value, length);
}

int get_congestion(Socket& socket, void* value, socklen_t* length) {
    const auto info = socket.channel().info(*socket.chiru());
    if (!info) return socket.options().get(IPPROTO_TCP, TCP_CONGESTION, value, length);
    return store_congestion(info->congestion, value, length);
}

int get_path_mtu(Socket& socket, void* value, socklen_t* length) {
    const auto info = socket.channel().info(*socket.chiru());
    if (!info) return -ENOTCONN;
    const auto mtu = static_cast<int>(packet_bytes(*info));
    return store_option(&mtu, sizeof mtu, value, length);
}

int get_max_segment(Socket& socket, void* value, socklen_t* length) {
    const auto info = socket.channel().info(*socket.chiru());
    const int mss = info && info->mss != 0 ? static_cast<int>(info->mss)
                                           : socket.options().value_of(OptionRow::MaxSegment);
    return store_option(&mss, sizeof mss, value, length);
}

}  // namespace chiru::posix
