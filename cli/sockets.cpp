// SPDX-License-Identifier: Apache-2.0
//
// chiructl sockets: UDP sockets with their owners. Each shard has a record of every socket and
// counts what it did for it; here they are one line.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

#include <map>

namespace chiru::cli {
namespace {

/// By name, each with the sums of all shards.
std::map<std::uint32_t, shm::DatagramInfo> datagram_sockets(const View& view) {
    std::map<std::uint32_t, shm::DatagramInfo> found;
    for (const TablesView& tables : view.tables)
        tables.for_each_datagram([&](const shm::DatagramInfo& info) {
            const auto [entry, first] = found.emplace(info.id, info);
            if (first) return;
            shm::DatagramInfo& sum = entry->second;
            sum.waiting_bytes += info.waiting_bytes;
            sum.rx_datagrams += info.rx_datagrams;
            sum.rx_bytes += info.rx_bytes;
            sum.tx_datagrams += info.tx_datagrams;
            sum.tx_bytes += info.tx_bytes;
            sum.dropped += info.dropped;
        });
    return found;
}

std::string local_of(const shm::DatagramInfo& info) {
    return Endpoint{info.local_address, info.local_port}.to_string();
}

std::string remote_of(const shm::DatagramInfo& info) {
    return info.connected != 0 ? Endpoint{info.remote_address, info.remote_port}.to_string() : "*";
}

std::string sockets_json(const View& view) {
    const auto owners = sessions(*view.directory);
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.key("sockets");
    json.begin_array();
    for (const auto& [id, info] : datagram_sockets(view)) {
        const auto owner = owners.find(info.session);
        json.begin_object();
        json.field("protocol", "udp");
        json.field("local", local_of(info));
        json.field("remote", remote_of(info));
        json.field("pid", owner == owners.end() ? 0 : owner->second.info.pid);
        json.field("program", program_name(owners, info.session));
        json.field("session", info.session);
        json.field("rx_datagrams", info.rx_datagrams);
        json.field("rx_bytes", info.rx_bytes);
        json.field("tx_datagrams", info.tx_datagrams);
        json.field("tx_bytes", info.tx_bytes);
        json.field("dropped", info.dropped);
        json.field("waiting_bytes", info.waiting_bytes);
        json.field("receive_buffer", info.receive_buffer);
        json.end_object();
    }
    json.end_array();
    json.end_object();
    return out + "\n";
}

}  // namespace

std::string show_sockets(const View& view, Form form) {
    if (form == Form::Json) return sockets_json(view);
    const auto owners = sessions(*view.directory);
    Table table({{"PROTO"}, {"LOCAL"}, {"REMOTE"}, {"PROCESS"}, {"RX", Align::Right},
                 {"TX", Align::Right}, {"DROPPED", Align::Right}, {"WAITING", Align::Right}});
    for (const auto& [id, info] : datagram_sockets(view))
        table.add({"udp", local_of(info), remote_of(info),
                   printable(program_name(owners, info.session)), count_text(info.rx_datagrams),
                   count_text(info.tx_datagrams), count_text(info.dropped),
                   bytes_text(info.waiting_bytes)});
    return table.empty() ? "no UDP sockets\n" : table.render();
}

}  // namespace chiru::cli
