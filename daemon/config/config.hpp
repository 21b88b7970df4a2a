// SPDX-License-Identifier: Apache-2.0
//
// What an operator can choose. Every field has its unit in its name or type, a default where one
// is sensible, and a rule in config.cpp. docs/configuration.md describes each key; a test compares
// the two.
#pragma once

#include "base/result.hpp"
#include "base/time.hpp"
#include "daemon/telemetry/log.hpp"
#include "shm/directory.hpp"
#include "stack/config.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace chiru::daemon {

/// What a shard does when it has nothing to do.
enum class Idle : std::uint8_t {
    Poll,       ///< never sleeps; the core is the shard's alone
    Adaptive,   ///< polls for `spin` after the last work, then sleeps until woken
    Interrupt,  ///< sleeps at once
};

enum class HugepageUse : std::uint8_t {
    Auto,      ///< used when enough are free
    Required,  ///< the daemon does not start without
    Off,
};

/// Whether sessions read the shared receive arena or one of their own.
enum class IsolationPolicy : std::uint8_t {
    Auto,  ///< shared for the daemon's own user, private for everybody else
    Shared,
    Private,
};

struct ControlSettings {
    std::string socket;  ///< where clients connect; $CHIRU_SOCKET names the same for them
    std::string group;   ///< the operators' group; empty: none
    /// Of the socket. Unset: 0660 with a group, 0600 without.
    std::optional<std::uint32_t> mode;
};

struct DataplaneSettings {
    std::vector<unsigned> cores;  ///< one shard on each
    bool pin = true;              ///< false: shards run wherever the process may
    Idle idle = Idle::Adaptive;
    Micros spin{200};  ///< how long an adaptive shard polls at most before it sleeps
    HugepageUse hugepages = HugepageUse::Auto;
    std::uint32_t connections = 131'072;  ///< of each shard
    std::uint32_t buffers = 0;            ///< receive buffers in all; 0: by ports and shards
};

struct PortSettings {
    std::string name;
    std::string device;  ///< a PCI address or an EAL vdev string, with its arguments
    std::uint16_t mtu = 1500;
    bool lro = false;  ///< the device may put segments together, if it can
};

struct SessionSettings {
    IsolationPolicy isolation = IsolationPolicy::Auto;
    std::uint64_t tx_arena_bytes = 64u << 20;  ///< of each session; committed as it is touched
    std::uint32_t max_sessions = 256;
    std::uint32_t max_channels = 64;     ///< of one session
    std::uint32_t max_listeners = 1024;  ///< of one session
    std::uint32_t max_connections = 0;   ///< of one session on each shard; 0: no bound of its own
    std::uint32_t max_rx_buffers = 0;    ///< that one session may hold; 0: half of all
};

struct Config {
    std::string file;  ///< where it was read from
    ControlSettings control;
    DataplaneSettings dataplane;
    std::vector<PortSettings> ports;
    std::vector<InterfaceConfig> interfaces;  ///< `port` counts in `ports`
    SessionSettings sessions;
    TcpConfig tcp;
    LogLevel log_level = LogLevel::Info;
};

/// What of the machine a configuration is checked against.
struct Machine {
    std::set<unsigned> cores;  ///< online processors
    std::function<bool(const std::string&)> has_group;
};
Machine this_machine();

/// Reads and checks a file. On failure, one line of text for each mistake, fit for a terminal.
Result<Config, std::vector<std::string>> load_config(const std::filesystem::path& file,
                                                     const Machine& machine = this_machine());

/// Every key there is, dotted: "dataplane.cores", "ports[].name".
std::set<std::string> config_keys();

}  // namespace chiru::daemon
