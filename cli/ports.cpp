// SPDX-License-Identifier: Apache-2.0
//
// chiructl ports: the devices, what was negotiated with them, and what they count.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

#include <array>
#include <utility>

namespace chiru::cli {
namespace {

using OffloadName = std::pair<shm::PortOffload, const char*>;
constexpr std::array kOffloadNames{
    OffloadName{shm::kOffloadRxIpChecksum, "rx-ip-checksum"},
    OffloadName{shm::kOffloadRxL4Checksum, "rx-l4-checksum"},
    OffloadName{shm::kOffloadTxIpChecksum, "tx-ip-checksum"},
    OffloadName{shm::kOffloadTxL4Checksum, "tx-l4-checksum"},
    OffloadName{shm::kOffloadTxScatter, "tx-scatter"},
    OffloadName{shm::kOffloadTso, "tso"},
    OffloadName{shm::kOffloadVlanStrip, "vlan-strip"},
    OffloadName{shm::kOffloadVlanInsert, "vlan-insert"},
    OffloadName{shm::kOffloadRss, "rss"},
    OffloadName{shm::kOffloadRxInterrupt, "rx-interrupt"},
    OffloadName{shm::kOffloadLro, "lro"},
};

std::vector<std::string_view> offload_names(std::uint32_t bits) {
    std::vector<std::string_view> names;
    for (const auto& [bit, name] : kOffloadNames)
        if ((bits & bit) != 0) names.emplace_back(name);
    return names;
}

using PortCounter = std::pair<const char*, std::uint64_t shm::PortInfo::*>;
constexpr std::array kPortCounters{
    PortCounter{"rx_frames", &shm::PortInfo::rx_frames},
    PortCounter{"rx_bytes", &shm::PortInfo::rx_bytes},
    PortCounter{"tx_frames", &shm::PortInfo::tx_frames},
    PortCounter{"tx_bytes", &shm::PortInfo::tx_bytes},
    PortCounter{"rx_missed", &shm::PortInfo::rx_missed},
    PortCounter{"rx_errors", &shm::PortInfo::rx_errors},
    PortCounter{"tx_errors", &shm::PortInfo::tx_errors},
    PortCounter{"rx_no_buffer", &shm::PortInfo::rx_no_buffer},
};

std::string ports_json(const View& view) {
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.key("ports");
    json.begin_array();
    for (const auto& [number, port] : ports(*view.directory)) {
        json.begin_object();
        json.field("port", number);
        json.field("name", port.name.view());
        json.field("driver", port.driver.view());
        json.field("device", port.device.view());
        json.field("link_up", port.link_up != 0);
        json.field("speed_mbps", port.speed_mbps);
        json.field("mtu", port.mtu);
        json.field("mac", chiru::to_string(port.mac));
        json.field("rx_queues", port.rx_queues);
        json.field("tx_queues", port.tx_queues);
        json.key("offloads");
        json.begin_array();
        for (const std::string_view name : offload_names(port.offloads)) json.value(name);
        json.end_array();
        for (const auto& [name, member] : kPortCounters) json.field(name, port.*member);
        json.end_object();
    }
    json.end_array();
    json.end_object();
    return out + "\n";
}

std::string link_text(const shm::PortInfo& port) {
    if (port.link_up == 0) return "down";
    if (port.speed_mbps == 0 || port.speed_mbps == ~0u) return "up";  // the device does not know
    if (port.speed_mbps % 1000 != 0) return "up " + std::to_string(port.speed_mbps) + "M";
    return "up " + std::to_string(port.speed_mbps / 1000) + "G";
}

std::string port_text(const shm::PortInfo& port) {
    std::string out = printable(port.name.view()) + "  " + printable(port.driver.view()) + "  " +
                      printable(port.device.view()) + "\n";
    out += "  link " + link_text(port) + "  mtu " + std::to_string(port.mtu) + "  mac " +
           chiru::to_string(port.mac) + "  queues " + std::to_string(port.rx_queues) + " rx, " +
           std::to_string(port.tx_queues) + " tx\n  offloads";
    for (const std::string_view name : offload_names(port.offloads)) {
        out += ' ';
        out += name;
    }
    if (port.offloads == 0) out += " none";
    out += "\n  rx " + count_text(port.rx_frames) + " frames, " + bytes_text(port.rx_bytes) +
           " bytes;  tx " + count_text(port.tx_frames) + " frames, " +
           bytes_text(port.tx_bytes) + " bytes\n";
    out += "  rx missed " + std::to_string(port.rx_missed) + ", errors " +
           std::to_string(port.rx_errors) + ", no buffer " + std::to_string(port.rx_no_buffer) +
           ";  tx errors " + std::to_string(port.tx_errors) + "\n";
    return out;
}

}  // namespace

std::string show_ports(const View& view, Form form) {
    if (form == Form::Json) return ports_json(view);
    std::string out;
    for (const Port& port : ports(*view.directory)) {
        if (!out.empty()) out += "\n";
        out += port_text(port.info);
    }
    return out.empty() ? "no ports\n" : out;
}

}  // namespace chiru::cli
