// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/plane_config.hpp"

#include "daemon/telemetry/log.hpp"

#include <string>

namespace chiru::daemon {
namespace {

IdlePolicy idle_policy(Idle idle) {
    switch (idle) {
        case Idle::Poll: return IdlePolicy::Poll;
        case Idle::Adaptive: return IdlePolicy::Adaptive;
        case Idle::Interrupt: break;
    }
    return IdlePolicy::Interrupt;
}

Hugepages hugepages(HugepageUse use) {
    switch (use) {
        case HugepageUse::Auto: return Hugepages::Auto;
        case HugepageUse::Required: return Hugepages::Required;
        case HugepageUse::Off: break;
    }
    return Hugepages::Off;
}

LogLevel log_level(nic::LogLevel level) {
    switch (level) {
        case nic::LogLevel::Debug: return LogLevel::Debug;
        case nic::LogLevel::Info: return LogLevel::Info;
        case nic::LogLevel::Warning: return LogLevel::Warning;
        case nic::LogLevel::Error: break;
    }
    return LogLevel::Error;
}

}  // namespace

PlaneConfig plane_config(const Config& config, const SipKey& secret) {
    PlaneConfig plane;
    plane.cores = config.dataplane.cores;
    plane.pin = config.dataplane.pin;
    plane.idle = idle_policy(config.dataplane.idle);
    plane.spin = config.dataplane.spin;
    plane.hugepages = hugepages(config.dataplane.hugepages);
    if (config.dataplane.buffers != 0) plane.rx_slots = config.dataplane.buffers;
    for (const PortSettings& port : config.ports)
        plane.ports.push_back({.name = port.name, .device = port.device, .mtu = port.mtu,
                               .lro = port.lro});
    plane.stack.connections = config.dataplane.connections;
    plane.stack.secret = secret;
    plane.stack.interfaces = config.interfaces;
    plane.stack.tcp = config.tcp;
    plane.log = [](nic::LogLevel level, std::string_view line) {
        log(log_level(level), "ports: " + std::string(line));
    };
    return plane;
}

}  // namespace chiru::daemon
