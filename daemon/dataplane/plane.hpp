// SPDX-License-Identifier: Apache-2.0
//
// The data plane as the control thread sees it: ports, the receive arena, and one shard a
// configured core. Everything here is called by the control thread alone. Shards are told what to
// do by post(), which never waits for them, and answer through take_reports().
//
//   start(config, directory)  ->  post(shard, command) ... take_reports() ...  ->  stop()
#pragma once

#include "base/result.hpp"
#include "base/time.hpp"
#include "daemon/dataplane/command.hpp"
#include "daemon/nic/log.hpp"
#include "shm/directory.hpp"
#include "shm/region.hpp"
#include "stack/config.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace chiru::daemon {

/// What a shard does when it has nothing to do.
enum class IdlePolicy : std::uint8_t {
    Poll,       ///< look again: lowest latency, a core for itself
    Adaptive,   ///< look again for a short while, then sleep
    Interrupt,  ///< sleep at once
};

enum class Hugepages : std::uint8_t {
    Auto,      ///< if there are free ones
    Required,  ///< or refuse to start
    Off,
};

struct PortSetup {
    std::string name;
    std::string device;       ///< a PCI address, or an EAL vdev string such as "net_tap0,iface=x"
    std::uint16_t mtu = 1500;
    bool lro = false;  ///< the device may put segments together
};

struct PlaneConfig {
    std::vector<unsigned> cores = {0};  ///< one shard each
    IdlePolicy idle = IdlePolicy::Adaptive;
    bool pin = true;   ///< false: shards run wherever the process may, not on their cores
    Micros spin{200};  ///< how long Adaptive looks again, at most, before it sleeps
    Hugepages hugepages = Hugepages::Auto;
    std::uint32_t rx_slots = 32'768;  ///< receive buffers, of all ports and shards together
    std::vector<PortSetup> ports;
    /// Every shard gets a copy. shard, shard_count, rx_slots, flow_map and ports are filled in
    /// from what the machine has; `connections`, `listeners` and so on count for each shard.
    StackConfig stack;
    nic::LogSink log;  ///< what DPDK and the ports have to say; may be called by any thread
};

class DataPlane {
public:
    DataPlane();
    ~DataPlane();  ///< stops, if that was not done
    DataPlane(const DataPlane&) = delete;
    DataPlane& operator=(const DataPlane&) = delete;

    /// Sets up DPDK, ports and memory, publishes the shards and ports in `directory` (which must
    /// outlive the plane) and starts the shards. The error is a sentence for the operator that
    /// says what to do. Can be called once in the life of a process.
    Result<void, std::string> start(const PlaneConfig& config, shm::Directory& directory);

    /// Resets every connection, lets the last frames leave, stops the ports and closes the
    /// devices. Nothing of the plane is left in the machine. Sessions' memory must still be
    /// mapped; after this no shard refers to it.
    void stop();

    std::uint32_t shard_count() const;
    std::size_t port_count() const;
    /// As configured into the stacks: MAC address, MTU and negotiated offloads.
    const PortConfig& port(std::size_t index) const;
    const shm::Region& rx_arena() const;
    std::uint32_t rx_slot_bytes() const;
    /// The region with the shard's connection blocks.
    const shm::Region& tables(std::uint32_t shard) const;

    /// Gives a shard something to do. Never blocks and never fails: what does not fit into the
    /// ring waits here, in order.
    void post(std::uint32_t shard, const Command& command);
    void post_to_all(const Command& command);

    /// Becomes readable when a shard reports. take_reports() empties it.
    int report_fd() const;
    /// Moves reports out, returns how many. Call until it returns less than it could.
    std::size_t take_reports(std::span<Report> reports);

    /// Makes client memory known to devices that need that (an IOMMU), before it is attached and
    /// after it is gone from every shard. Returns an errno value on failure.
    Result<void, int> map_for_devices(std::span<std::byte> memory);
    void unmap_for_devices(std::span<std::byte> memory);

    /// Sees to ports whose link came or went, and publishes link states and statistics of all in
    /// the directory. Once a second.
    void watch_ports();

private:
    void publish_ports();

    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace chiru::daemon
