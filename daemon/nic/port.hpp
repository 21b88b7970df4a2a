// SPDX-License-Identifier: Apache-2.0
//
// A port: one DPDK device, from its device string to running queues. What a device can do is asked
// for, and only what it grants is used; config() says what that is.
//
//   probe()  the device exists, its limits are known
//   start()  queues are set up on the receive arena, frames flow; but the client's end of a memif
//            may have to wait for its server, and again if that goes: peer_answers(), restart()
//
// Queue i belongs to shard i. A device with fewer queues than there are shards leaves the later
// shards without: they get their frames, and send, through the others (daemon/dataplane/steering).
#pragma once

#include "base/result.hpp"
#include "daemon/nic/log.hpp"
#include "daemon/nic/memif_probe.hpp"
#include "daemon/nic/memif_ring.hpp"
#include "daemon/nic/rx_arena.hpp"
#include "shm/directory.hpp"
#include "stack/config.hpp"

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

struct rte_eth_dev_info;
struct rte_eth_conf;

namespace chiru::daemon::nic {

struct PortOptions {
    std::string name;
    std::string device;
    std::uint16_t mtu = 1500;
    std::uint16_t shards = 1;
    bool want_interrupts = true;  ///< shards may sleep
    bool coalesce = false;        ///< the device may put segments together (LRO)
};

/// What can wake a shard that waits for a queue's frames.
enum class WakeKind : std::uint8_t {
    None,       ///< nothing: the shard sleeps for short times only
    Readable,   ///< a descriptor that stays readable while frames wait
    Interrupt,  ///< DPDK's receive interrupt
    Memif,      ///< memif_ring.hpp
};

struct WakeSource {
    WakeKind kind = WakeKind::None;
    int fd = -1;  ///< Readable, Interrupt
    MemifRing ring;
};

class Port {
public:
    static Result<std::unique_ptr<Port>, std::string> probe(const PortOptions& options,
                                                            const LogSink& log);
    ~Port();
    Port(const Port&) = delete;
    Port& operator=(const Port&) = delete;

    /// Bytes that a receive buffer must hold for this port.
    std::uint32_t frame_bytes() const { return frame_bytes_; }
    /// Receive buffers that the port's queues keep to themselves.
    std::uint32_t buffers_kept() const;

    Result<void, std::string> start(const RxArena& arena, const FlowMap& flow_map);
    /// Do frames flow, or would they if the link were up? If not, no shard may use the port.
    bool is_started() const { return started_; }
    bool link_is_up() const;
    /// Once its link is down, only restart() can bring it up again.
    bool needs_restart() const { return probe_.is_client(); }
    /// Is there somebody to connect to? Never blocks.
    bool peer_answers() { return probe_.answered(); }
    /// No shard may use the port meanwhile, nor afterwards if this fails.
    Result<void, std::string> restart(const RxArena& arena);
    /// No shard may use the port any longer.
    void stop();

    const PortConfig& config() const { return config_; }
    std::uint16_t id() const { return id_; }
    std::uint16_t queues() const { return queues_; }
    /// Frames of TCP flows arrive at the shard that owns them, and carry the hash that says so.
    bool hashes_flows() const { return hashes_flows_; }
    /// The driver takes one contiguous buffer a frame, out of the receive arena.
    bool sends_from_arena() const { return sends_from_arena_; }
    /// It takes segments only, and whoever sends cuts large frames first.
    bool leaves_cutting() const { return (config_.offloads & shm::kOffloadTso) == 0; }
    bool needs_prepare() const;
    /// Frames may be larger than the MTU.
    bool coalesces() const { return (config_.offloads & shm::kOffloadLro) != 0; }
    /// A peer's end can make a burst fault (memif_guard.hpp).
    bool needs_guard() const { return is_driver("net_memif"); }
    const WakeSource& wake_source(std::uint16_t queue) const { return wake_sources_[queue]; }
    const MemifRing& transmit_ring(std::uint16_t queue) const { return transmit_rings_[queue]; }

    shm::PortInfo info() const;

    /// Memory of clients that the device is to read. Returns an errno value on failure.
    Result<void, int> map_memory(std::span<std::byte> memory) const;
    void unmap_memory(std::span<std::byte> memory) const;
    /// Does the device go through an IOMMU, so that map_memory() is needed?
    bool needs_mapped_memory() const { return is_pci_; }

private:
    Port(const PortOptions& options, const LogSink& log)
        : options_(options), log_(log), probe_(options.device) {}

    Result<void, std::string> attach();
    Result<void, std::string> read_limits();
    Result<void, std::string> configure();
    Result<void, std::string> set_up_queues(const RxArena& arena);
    void negotiate(const rte_eth_dev_info& device, rte_eth_conf& wanted);
    bool negotiate_hash(const rte_eth_dev_info& device, rte_eth_conf& wanted) const;
    void program_flow_map(const FlowMap& flow_map);
    Result<void, std::string> apply_mtu();
    void find_wake_sources(const RxArena& arena);
    std::string complaint(const std::string& what, int error) const;
    void warn(const std::string& text) const;
    bool is_driver(const char* name) const { return driver_ == name; }

    PortOptions options_;
    const LogSink& log_;
    MemifProbe probe_;
    std::string device_name_;  ///< DPDK's name: the device string up to the first comma
    std::string driver_;
    PortConfig config_;
    std::uint16_t id_ = 0;
    std::uint16_t queues_ = 0;
    std::uint16_t rx_descriptors_ = 0;
    std::uint16_t tx_descriptors_ = 0;
    std::uint32_t frame_bytes_ = 0;
    unsigned kernel_interface_ = 0;    ///< of software drivers; 0: none
    bool is_pci_ = false;
    bool attached_ = false;
    bool started_ = false;
    bool hashes_flows_ = false;
    bool sends_from_arena_ = false;
    bool interrupts_ = false;
    std::set<int> fds_before_;
    std::vector<std::vector<int>> queue_fds_;
    std::vector<WakeSource> wake_sources_;
    std::vector<MemifRing> transmit_rings_;
};

}  // namespace chiru::daemon::nic
