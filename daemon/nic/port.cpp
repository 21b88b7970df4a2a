// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/port.hpp"

#include "daemon/nic/device_string.hpp"
#include "daemon/nic/eal.hpp"
#include "daemon/nic/memif_guard.hpp"
#include "daemon/nic/open_fds.hpp"
#include "daemon/nic/tap_signals.hpp"
#include "stack/ip/flow_hash.hpp"

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace chiru::daemon::nic {
namespace {

constexpr std::uint32_t kLinkBytes = RTE_ETHER_HDR_LEN + 2 * RTE_VLAN_HLEN;
constexpr std::uint32_t kMinFrameBytes = 2048;
constexpr std::uint16_t kDescriptors = 1024;
constexpr std::uint16_t kTapDescriptors = 8;  // its driver uses one, however many it is given
/// Frames the kernel queues towards a tap. Its own 1000 are lost to a burst of 2000 connections
/// that close at once, and a lost SYN costs the peer a second.
constexpr int kTapQueueFrames = 8192;
constexpr std::uint32_t kXdpFillBuffers = 4096;  // the fill queue, and what is on its way
constexpr std::size_t kTableGroup = RTE_ETH_RETA_GROUP_SIZE;
constexpr Micros kServerPatience{200'000};    // of a memif client that starts
constexpr std::uint32_t kTsoBytes = 64'000;   // and headers make at most 64 KiB
/// What we cut ourselves. Larger ones would spare little more, and make others wait.
constexpr std::uint32_t kCutBytes = 16'384;

/// Whether the driver's software offloads are worth having: they are not. It would compute what the
/// stack computes, only later, with the frame out of the cache.
bool offloads_are_hardware(const std::string& driver) {
    for (const char* software : {"net_tap", "net_af_packet", "net_af_xdp", "net_memif", "net_null",
                                 "net_ring", "net_pcap"})
        if (driver == software) return false;
    return true;
}

struct OffloadPair {
    std::uint64_t dpdk;
    std::uint32_t ours;
};
constexpr OffloadPair kReceiveOffloads[] = {
    {RTE_ETH_RX_OFFLOAD_IPV4_CKSUM, shm::kOffloadRxIpChecksum},
    {RTE_ETH_RX_OFFLOAD_TCP_CKSUM, shm::kOffloadRxL4Checksum},
    {RTE_ETH_RX_OFFLOAD_VLAN_STRIP, shm::kOffloadVlanStrip},
};
constexpr OffloadPair kTransmitOffloads[] = {
    {RTE_ETH_TX_OFFLOAD_IPV4_CKSUM, shm::kOffloadTxIpChecksum},
    {RTE_ETH_TX_OFFLOAD_TCP_CKSUM, shm::kOffloadTxL4Checksum},
    {RTE_ETH_TX_OFFLOAD_TCP_TSO, shm::kOffloadTso},
    {RTE_ETH_TX_OFFLOAD_VLAN_INSERT, shm::kOffloadVlanInsert},
};

constexpr std::uint64_t kTcpHashes = RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP;

}  // namespace

Result<std::unique_ptr<Port>, std::string> Port::probe(const PortOptions& options,
                                                       const LogSink& log) {
    std::unique_ptr<Port> port(new Port(options, log));
    if (const std::optional<std::string> missing = missing_on_this_machine(options.device))
        return std::unexpected("port " + options.name + ": " + *missing);
    if (const std::optional<std::string> wrong = argument_trouble(options.device, options.mtu))
        return std::unexpected("port " + options.name + ": " + *wrong);
    if (Result<void, std::string> done = port->attach(); !done)
        return std::unexpected(done.error());
    if (Result<void, std::string> done = port->read_limits(); !done)
        return std::unexpected(done.error());
    return port;
}

Result<void, std::string> Port::attach() {
    device_name_ = device_name(options_.device);
    is_pci_ = is_pci_device(options_.device);
    interrupts_ = is_pci_ && options_.want_interrupts;
    fds_before_ = open_fds();
    if (!is_pci_) {  // PCI devices were found when DPDK started
        const std::string device =
            complete_device(options_.device, options_.shards, options_.mtu);
        remove_stale_socket(device);
        const TapSignalsBlocked guard;
        // It complains about traffic classes of the kernel that only its flow rules would need.
        rte_log_set_level_pattern("pmd.net.tap", RTE_LOG_CRIT);
        // And it warns that other processes cannot share the device, which nobody wants.
        rte_log_set_level_pattern("pmd.net.memif", RTE_LOG_ERR);
        if (const int error = rte_dev_probe(device.c_str()); error != 0)
            return std::unexpected(complaint("DPDK cannot open the device", -error));
        for (const int fd : frame_fds(fds_before_, open_fds())) silence_tap(fd);
    }
    std::string found = device_name_;
    if (is_pci_ && found.find(':') == found.rfind(':')) found = "0000:" + found;
    if (rte_eth_dev_get_port_by_name(found.c_str(), &id_) != 0)
        return std::unexpected(complaint("DPDK has no driver that serves this device", 0));
    attached_ = true;
    return {};
}

Result<void, std::string> Port::read_limits() {
    rte_eth_dev_info device;
    if (const int error = rte_eth_dev_info_get(id_, &device); error != 0)
        return std::unexpected(complaint("DPDK does not tell its limits", -error));
    driver_ = device.driver_name;
    kernel_interface_ = is_pci_ ? 0 : device.if_index;
    sends_from_arena_ = is_driver("net_af_xdp");

    std::uint16_t queues = std::min({options_.shards, device.max_rx_queues, device.max_tx_queues});
    if (needs_guard()) install_memif_guard();
    // The two ends of a memif agree on the smaller number of queues and its driver then goes
    // astray on the others.
    if (is_driver("net_memif")) queues = 1;
    queues_ = std::max<std::uint16_t>(queues, 1);

    const std::size_t kernel_queues = kernel_receive_queues(options_.device);
    if (is_driver("net_af_xdp") && kernel_queues > queues_)
        warn("frames that arrive on " + std::to_string(kernel_queues - queues_) + " of the " +
             std::to_string(kernel_queues) + " queues of the interface go to the kernel; give it " +
             "fewer (ethtool -L), or us more (queue_count= in the device string)");

    rte_ether_addr mac;
    rte_eth_macaddr_get(id_, &mac);
    std::copy_n(mac.addr_bytes, config_.mac.bytes.size(), config_.mac.bytes.begin());
    // That of a tap device is the kernel's end of the wire; ours is the other one.
    if (is_driver("net_tap")) config_.mac.bytes.back() ^= 1;

    // The frame size of a packet ring is also the least the driver accepts as buffer.
    std::uint32_t ring_frame = 0;
    const std::string complete = complete_device(options_.device, options_.shards, options_.mtu);
    if (is_driver("net_af_packet"))
        if (const auto text = device_argument(complete, "framesz"))
            ring_frame = static_cast<std::uint32_t>(std::strtoul(text->c_str(), nullptr, 10));
    frame_bytes_ = std::max({kMinFrameBytes, options_.mtu + kLinkBytes, ring_frame});
    return {};
}

std::uint32_t Port::buffers_kept() const {
    const std::uint32_t each = is_driver("net_af_xdp") ? kXdpFillBuffers : kDescriptors;
    return queues_ * each;
}

Result<void, std::string> Port::start(const RxArena& arena, const FlowMap& flow_map) {
    Result<void, std::string> done = configure();
    if (done) done = set_up_queues(arena);
    if (done && is_pci_)
        if (const Result<void, int> mapped = map_memory(arena.region().bytes()); !mapped)
            done = std::unexpected(complaint("it cannot reach the receive arena", mapped.error()));
    if (!done) return done;
    if (needs_restart() && !probe_.answered(kServerPatience)) {
        warn("nobody serves its socket yet; its link comes up when somebody does");
        return apply_mtu();
    }

    int error = rte_eth_dev_start(id_);
    if (error != 0 && interrupts_) {  // granted, but not to be had: vfio without MSI-X
        interrupts_ = false;
        done = configure();
        if (done) done = set_up_queues(arena);
        if (!done) return done;
        error = rte_eth_dev_start(id_);
    }
    if (error != 0) return std::unexpected(complaint("the device does not start", -error));
    started_ = true;

    if (done = apply_mtu(); !done) return done;
    if (config_.offloads & shm::kOffloadRss) program_flow_map(flow_map);
    find_wake_sources(arena);
    return {};
}

Result<void, std::string> Port::restart(const RxArena& arena) {
    if (started_) rte_eth_dev_stop(id_);
    started_ = false;
    if (const int error = rte_eth_dev_start(id_); error != 0)
        return std::unexpected(complaint("the device does not start", -error));
    started_ = true;
    find_wake_sources(arena);
    return {};
}

bool Port::link_is_up() const {
    rte_eth_link link{};
    return rte_eth_link_get_nowait(id_, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

Result<void, std::string> Port::configure() {
    rte_eth_dev_info device;
    rte_eth_dev_info_get(id_, &device);
    rte_eth_conf wanted{};
    config_.offloads = 0;
    negotiate(device, wanted);
    if (is_pci_) wanted.rxmode.mtu = options_.mtu;
    wanted.intr_conf.rxq = interrupts_;

    int error = rte_eth_dev_configure(id_, queues_, queues_, &wanted);
    if (error != 0 && wanted.intr_conf.rxq) {
        interrupts_ = false;
        wanted.intr_conf.rxq = 0;
        error = rte_eth_dev_configure(id_, queues_, queues_, &wanted);
    }
    if (error == -EINVAL && options_.mtu > device.max_mtu)
        return std::unexpected(complaint("an MTU of " + std::to_string(options_.mtu) +
                                             " is more than the device's " +
                                             std::to_string(device.max_mtu), 0));
    if (error != 0) return std::unexpected(complaint("the device cannot be configured", -error));
    return {};
}

void Port::negotiate(const rte_eth_dev_info& device, rte_eth_conf& wanted) {
    const bool hardware = offloads_are_hardware(driver_);
    for (const OffloadPair& pair : kReceiveOffloads) {
        // A packet socket strips the tag in any case; else its driver would put it back.
        const bool strip = pair.ours == shm::kOffloadVlanStrip && is_driver("net_af_packet");
        if ((!hardware && !strip) || (device.rx_offload_capa & pair.dpdk) == 0) continue;
        wanted.rxmode.offloads |= pair.dpdk;
        config_.offloads |= pair.ours;
    }
    if ((config_.offloads & shm::kOffloadRxL4Checksum) != 0)
        wanted.rxmode.offloads |= device.rx_offload_capa & RTE_ETH_RX_OFFLOAD_UDP_CKSUM;

    if (options_.coalesce && (device.rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_LRO) != 0) {
        wanted.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_TCP_LRO |
                                  (device.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER);
        wanted.rxmode.max_lro_pkt_size = device.max_lro_pkt_size;
        config_.offloads |= shm::kOffloadLro;
    }
    for (const OffloadPair& pair : kTransmitOffloads) {
        if (!hardware || (device.tx_offload_capa & pair.dpdk) == 0) continue;
        wanted.txmode.offloads |= pair.dpdk;
        config_.offloads |= pair.ours;
    }
    if ((device.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0 && !sends_from_arena_) {
        wanted.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
        config_.offloads |= shm::kOffloadTxScatter;
    } else {
        wanted.txmode.offloads &= ~RTE_ETH_TX_OFFLOAD_TCP_TSO;  // it needs scattered frames
        config_.offloads &= ~std::uint32_t{shm::kOffloadTso};
    }
    config_.tso_bytes = leaves_cutting() ? kCutBytes : kTsoBytes;
    if (hardware && negotiate_hash(device, wanted)) config_.offloads |= shm::kOffloadRss;
}

bool Port::negotiate_hash(const rte_eth_dev_info& device, rte_eth_conf& wanted) const {
    if (queues_ < 2 || device.reta_size == 0 || device.hash_key_size == 0 ||
        device.hash_key_size > ip::kFlowKeyBytes ||
        (device.flow_type_rss_offloads & kTcpHashes) != kTcpHashes)
        return false;
    wanted.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    wanted.rxmode.offloads |= device.rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH;
    wanted.rx_adv_conf.rss_conf.rss_hf = kTcpHashes;
    wanted.rx_adv_conf.rss_conf.rss_key = const_cast<std::uint8_t*>(ip::kFlowKey.data());
    wanted.rx_adv_conf.rss_conf.rss_key_len = device.hash_key_size;
    return true;
}

/// Lets the device put every flow group where the flow map wants it. Only then is its hash
/// believed.
void Port::program_flow_map(const FlowMap& flow_map) {
    rte_eth_dev_info device;
    rte_eth_dev_info_get(id_, &device);
    std::vector<rte_eth_rss_reta_entry64> table(
        (device.reta_size + kTableGroup - 1) / kTableGroup);
    for (std::size_t i = 0; i < device.reta_size; ++i) {
        table[i / kTableGroup].mask |= std::uint64_t{1} << i % kTableGroup;
        table[i / kTableGroup].reta[i % kTableGroup] =
            static_cast<std::uint16_t>(flow_map[i % kFlowGroups] % queues_);
    }
    const int error = rte_eth_dev_rss_reta_update(id_, table.data(), device.reta_size);
    if (error != 0)
        warn("its redirection table cannot be set; frames are steered in software");
    hashes_flows_ = error == 0 && queues_ == options_.shards &&
                    device.reta_size % kFlowGroups == 0 &&
                    (device.rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH) != 0;
}

Result<void, std::string> Port::set_up_queues(const RxArena& arena) {
    rx_descriptors_ = is_driver("net_tap") ? kTapDescriptors : kDescriptors;
    tx_descriptors_ = kDescriptors;
    rte_eth_dev_adjust_nb_rx_tx_desc(id_, &rx_descriptors_, &tx_descriptors_);
    const auto node = static_cast<unsigned>(SOCKET_ID_ANY);

    const TapSignalsBlocked guard;
    queue_fds_.assign(queues_, {});
    for (std::uint16_t queue = 0; queue < queues_; ++queue) {
        const std::set<int> before = open_fds();
        const int error = rte_eth_rx_queue_setup(id_, queue, rx_descriptors_, node, nullptr,
                                                 arena.pool());
        if (error != 0)
            return std::unexpected(complaint("a receive queue cannot be set up", -error));
        queue_fds_[queue] = frame_fds(before, open_fds());
        for (const int fd : queue_fds_[queue]) silence_tap(fd);
    }
    for (std::uint16_t queue = 0; queue < queues_; ++queue) {
        const std::set<int> before = open_fds();
        const int error = rte_eth_tx_queue_setup(id_, queue, tx_descriptors_, node, nullptr);
        if (error != 0)
            return std::unexpected(complaint("a transmit queue cannot be set up", -error));
        for (const int fd : frame_fds(before, open_fds())) silence_tap(fd);
    }
    return {};
}

Result<void, std::string> Port::apply_mtu() {
    config_.mtu = options_.mtu;
    if (is_pci_ || kernel_interface_ == 0) return {};  // configured, or there is none to set
    rte_eth_dev_info device;
    rte_eth_dev_info_get(id_, &device);
    if (options_.mtu > device.max_mtu) {
        config_.mtu = device.max_mtu;
        warn("its MTU is reduced to " + std::to_string(config_.mtu) + ", the driver's limit");
    }
    // Not rte_eth_dev_set_mtu(): drivers of kernel interfaces claim a limit of 1500 that they do
    // not have.
    ifreq request{};
    if (if_indextoname(kernel_interface_, request.ifr_name) == nullptr) return {};
    request.ifr_mtu = config_.mtu;
    const int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const bool set = socket_fd >= 0 && ioctl(socket_fd, SIOCSIFMTU, &request) == 0;
    const int error = errno;
    if (set && is_driver("net_tap")) {
        request.ifr_qlen = kTapQueueFrames;
        if (ioctl(socket_fd, SIOCSIFTXQLEN, &request) != 0)
            warn("the kernel does not lengthen its queue; it will drop frames of large bursts");
    }
    if (socket_fd >= 0) close(socket_fd);
    if (!set)
        return std::unexpected(complaint("the interface " + std::string(request.ifr_name) +
                                             " does not take an MTU of " +
                                             std::to_string(config_.mtu), error));
    return {};
}

void Port::find_wake_sources(const RxArena& arena) {
    const std::vector<int> all = frame_fds(fds_before_, open_fds());
    wake_sources_.assign(queues_, {});
    transmit_rings_.assign(queues_, {});
    for (std::uint16_t queue = 0; queue < queues_; ++queue) {
        WakeSource& source = wake_sources_[queue];
        const int interrupt = interrupts_ ? rte_eth_dev_rx_intr_ctl_q_get_fd(id_, queue) : -1;
        if (interrupt >= 0) {
            source = {.kind = WakeKind::Interrupt, .fd = interrupt, .ring = {}};
        } else if (is_driver("net_memif")) {
            using Direction = MemifRing::Direction;
            source.ring = MemifRing::of_queue(id_, queue, Direction::Receive, arena.pool());
            transmit_rings_[queue] = MemifRing::of_queue(id_, queue, Direction::Transmit, nullptr);
            if (source.ring) source.kind = WakeKind::Memif;
        } else if (!queue_fds_[queue].empty()) {
            source = {.kind = WakeKind::Readable, .fd = queue_fds_[queue].front(), .ring = {}};
        } else if (all.size() == queues_) {  // opened when the device was probed, in this order
            source = {.kind = WakeKind::Readable, .fd = all[queue], .ring = {}};
        }
        if (source.kind == WakeKind::None)
            warn("nothing can wake a shard that waits for its frames; idle shards look every "
                 "100 microseconds instead");
        else config_.offloads |= shm::kOffloadRxInterrupt;
    }
}

void Port::stop() {
    if (started_) rte_eth_dev_stop(id_);
    started_ = false;
    if (attached_) rte_eth_dev_close(id_);
    attached_ = false;
}

Port::~Port() { stop(); }

bool Port::needs_prepare() const {
    return (config_.offloads & (shm::kOffloadTxIpChecksum | shm::kOffloadTxL4Checksum |
                                shm::kOffloadTso)) != 0;
}

shm::PortInfo Port::info() const {
    shm::PortInfo info;
    info.in_use = 1;
    info.mtu = config_.mtu;
    info.mac = config_.mac;
    info.rx_queues = queues_;
    info.tx_queues = queues_;
    info.offloads = config_.offloads;
    info.name.set(options_.name);
    info.driver.set(driver_);
    info.device.set(options_.device);

    rte_eth_link link{};
    if (rte_eth_link_get_nowait(id_, &link) == 0) {
        info.link_up = link.link_status == RTE_ETH_LINK_UP;
        info.speed_mbps = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
    }
    rte_eth_stats stats{};
    if (rte_eth_stats_get(id_, &stats) == 0) {
        info.rx_frames = stats.ipackets;
        info.rx_bytes = stats.ibytes;
        info.tx_frames = stats.opackets;
        info.tx_bytes = stats.obytes;
        info.rx_missed = stats.imissed;
        info.rx_errors = stats.ierrors;
        info.tx_errors = stats.oerrors;
        info.rx_no_buffer = stats.rx_nombuf;
    }
    return info;
}

Result<void, int> Port::map_memory(std::span<std::byte> memory) const {
    rte_eth_dev_info device;
    rte_eth_dev_info_get(id_, &device);
    if (rte_dev_dma_map(device.device, memory.data(), reinterpret_cast<rte_iova_t>(memory.data()),
                        memory.size()) == 0 ||
        rte_errno == ENOTSUP)  // a driver that maps by itself
        return {};
    return std::unexpected(rte_errno);
}

void Port::unmap_memory(std::span<std::byte> memory) const {
    rte_eth_dev_info device;
    rte_eth_dev_info_get(id_, &device);
    rte_dev_dma_unmap(device.device, memory.data(), reinterpret_cast<rte_iova_t>(memory.data()),
                      memory.size());
}

std::string Port::complaint(const std::string& what, int error) const {
    return "port " + options_.name + " (" + options_.device + "): " + what +
           (error != 0 ? std::string(": ") + std::strerror(error) : std::string());
}

void Port::warn(const std::string& text) const {
    if (log_) log_(LogLevel::Warning, "port " + options_.name + ": " + text);
}

}  // namespace chiru::daemon::nic
