// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/tcp_info.hpp"

#include "shm/tables.hpp"

#include <cerrno>

#include <netinet/tcp.h>

namespace chiru::posix {

namespace {

/// Linux's numbers of the states, in the order of TcpState.
std::uint8_t linux_state(shm::TcpState state) {
    switch (state) {
        case shm::TcpState::Listen: return TCP_LISTEN;
        case shm::TcpState::SynSent: return TCP_SYN_SENT;
        case shm::TcpState::SynReceived: return TCP_SYN_RECV;
        case shm::TcpState::Established: return TCP_ESTABLISHED;
        case shm::TcpState::FinWait1: return TCP_FIN_WAIT1;
        case shm::TcpState::FinWait2: return TCP_FIN_WAIT2;
        case shm::TcpState::CloseWait: return TCP_CLOSE_WAIT;
        case shm::TcpState::Closing: return TCP_CLOSING;
        case shm::TcpState::LastAck: return TCP_LAST_ACK;
        case shm::TcpState::TimeWait: return TCP_TIME_WAIT;
        default: return TCP_CLOSE;
    }
}

}  // namespace

int get_tcp_info(Socket& socket, void* value, socklen_t* length) {
    const auto info = socket.channel().info(*socket.chiru());
    tcp_info told{};
    told.tcpi_state = TCP_CLOSE;
    if (info) {
        const std::uint32_t mss = info->mss == 0 ? 1 : info->mss;
        told.tcpi_state = linux_state(info->state);
        told.tcpi_rto = info->rto_us;
        told.tcpi_snd_mss = info->mss;
        told.tcpi_rcv_mss = info->mss;
        told.tcpi_unacked = (info->snd_nxt - info->snd_una + mss - 1) / mss;
        told.tcpi_rtt = info->srtt_us;
        told.tcpi_rttvar = info->rttvar_us;
        told.tcpi_snd_ssthresh = info->ssthresh_bytes / mss;
        told.tcpi_snd_cwnd = info->cwnd_bytes / mss;
        told.tcpi_advmss = info->mss;
        told.tcpi_rcv_space = info->rcv_buffer_bytes;
        told.tcpi_total_retrans = static_cast<std::uint32_t>(info->retransmitted_segments);
    }
    return store_option(&told, sizeof told, value, length);
}

int get_max_segment(Socket& socket, void* value, socklen_t* length) {
    const auto info = socket.channel().info(*socket.chiru());
    const int mss = info && info->mss != 0 ? static_cast<int>(info->mss)
                                           : socket.options().value_of(OptionRow::MaxSegment);
    return store_option(&mss, sizeof mss, value, length);
}

}  // namespace chiru::posix
