// SPDX-License-Identifier: Apache-2.0
//
// chiructl neigh: what each shard knows of its neighbours (ARP and ND), like ip-neighbour(8).
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

#include <tuple>

namespace chiru::cli {
namespace {

struct Entry {
    std::uint32_t shard = 0;
    shm::NeighborInfo info;
};

std::vector<Entry> entries(const View& view) {
    std::vector<Entry> found;
    for (const TablesView& tables : view.tables)
        tables.for_each_neighbor([&](const shm::NeighborInfo& info) {
            found.push_back({tables.shard(), info});
        });
    std::ranges::sort(found, [](const Entry& a, const Entry& b) {
        return std::tuple(a.info.interface, a.info.address, a.shard) <
               std::tuple(b.info.interface, b.info.address, b.shard);
    });
    return found;
}

bool mac_is_known(const shm::NeighborInfo& info) {
    return info.state != shm::NeighborState::Incomplete &&
           info.state != shm::NeighborState::Failed;
}

std::string neighbors_json(const View& view) {
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.key("neighbors");
    json.begin_array();
    for (const auto& [shard, info] : entries(view)) {
        json.begin_object();
        json.field("address", info.address.to_string());
        json.key("mac");
        if (mac_is_known(info)) json.value(chiru::to_string(info.mac));
        else json.null();
        json.field("interface", interface_name(*view.directory, info.interface));
        json.field("state", to_string(info.state));
        json.field("router", info.is_router != 0);
        json.field("queued_frames", info.queued_frames);
        json.field("probes", info.probes);
        json.field("updated_us_ago", view.now_us - info.updated_us);
        json.field("shard", shard);
        json.end_object();
    }
    json.end_array();
    json.end_object();
    return out + "\n";
}

}  // namespace

std::string show_neighbors(const View& view, Form form) {
    if (form == Form::Json) return neighbors_json(view);
    Table table({{"ADDRESS"}, {"MAC"}, {"INTERFACE"}, {"STATE"}, {"UPDATED", Align::Right},
                 {"QUEUED", Align::Right}, {"SHARD", Align::Right}, {"FLAGS"}});
    for (const auto& [shard, info] : entries(view)) {
        const std::string updated = duration_text(view.now_us - info.updated_us) + " ago";
        table.add({info.address.to_string(), mac_is_known(info) ? chiru::to_string(info.mac) : "-",
                   printable(interface_name(*view.directory, info.interface)),
                   to_string(info.state), updated, std::to_string(info.queued_frames),
                   std::to_string(shard), info.is_router != 0 ? "router" : ""});
    }
    return table.empty() ? "no neighbours\n" : table.render();
}

}  // namespace chiru::cli
