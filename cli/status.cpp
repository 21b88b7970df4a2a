// SPDX-License-Identifier: Apache-2.0
//
// chiructl status: is it well, and how much of everything is there now.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

namespace chiru::cli {
namespace {

struct Live {
    std::uint64_t connections = 0;  ///< that a session owns
    std::uint64_t blocks = 0;       ///< in any state, those in TIME-WAIT included
    std::uint64_t listeners = 0;
    std::uint64_t sessions = 0;
    std::uint64_t observers = 0;
    std::uint64_t channels = 0;
    std::uint64_t rx_slots_held = 0;
};

Live count_live(const View& view) {
    Live live;
    for (std::size_t slot = 0; slot < shm::kMaxSessions; ++slot) {
        live.connections += total(view, slot, &shm::SessionCounters::connections);
        live.rx_slots_held += total(view, slot, &shm::SessionCounters::rx_slots_held) +
                              total(view, slot, &shm::SessionCounters::datagram_slots_held);
    }
    for (const auto& [id, session] : sessions(*view.directory)) {
        if (session.info.observer != 0) ++live.observers;
        else ++live.sessions;
        live.listeners += session.info.listeners;
    }
    live.channels = channels(*view.directory).size();
    for (const TablesView& tables : view.tables) live.blocks += tables.connections_live();
    return live;
}

const char* daemon_state(const View& view) {
    if (!view.daemon_answers) return "does not answer";
    return view.directory->stopping.load(std::memory_order_relaxed) != 0 ? "stopping" : "running";
}

/// Of the time since the daemon started, how much the shard had work.
double busy_percent(const View& view, std::uint32_t shard) {
    const std::int64_t uptime_us = view.now_us - view.directory->started_us;
    if (uptime_us <= 0) return 0;
    const auto busy = static_cast<double>(counter(view, shard, "shard.busy_us"));
    return 100 * busy / static_cast<double>(uptime_us);
}

std::int64_t turn_age_us(const View& view, std::uint32_t shard) {
    return view.now_us -
           view.directory->shards[shard].alive_us.load(std::memory_order_relaxed);
}

void write_shards(JsonWriter& json, const View& view) {
    json.key("shards");
    json.begin_array();
    for (std::uint32_t i = 0; i < view.shard_count(); ++i) {
        const shm::ShardPage& page = view.directory->shards[i];
        json.begin_object();
        json.field("shard", i);
        json.field("core", page.core.load(std::memory_order_relaxed));
        json.field("thread", page.thread.load(std::memory_order_relaxed));
        json.field("state", shard_state(view, i));
        json.field("turned_us_ago", turn_age_us(view, i));
        json.field("busy_percent", busy_percent(view, i));
        json.end_object();
    }
    json.end_array();
}

void write_interfaces(JsonWriter& json, const View& view) {
    json.key("interfaces");
    json.begin_array();
    for (const Interface& interface : interfaces(*view.directory)) {
        json.begin_object();
        json.field("name", interface.info.name.view());
        json.field("vlan", interface.info.vlan);
        json.field("mtu", interface.info.mtu);
        json.key("addresses");
        json.begin_array();
        for (std::size_t i = 0; i < interface.info.address_count && i < shm::kMaxAddresses; ++i) {
            const shm::AddressInfo& address = interface.info.addresses[i];
            json.begin_object();
            json.field("address", address.prefix.to_string());
            json.field("state", to_string(address.state));
            json.field("origin", to_string(address.origin));
            json.end_object();
        }
        json.end_array();
        json.end_object();
    }
    json.end_array();
}

std::string status_json(const View& view) {
    const Live live = count_live(view);
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.field("pid", view.directory->daemon_pid);
    json.field("release", view.directory->release.view());
    json.field("state", daemon_state(view));
    json.field("answers", view.daemon_answers);
    json.field("uptime_s", (view.now_us - view.directory->started_us) / 1'000'000);
    json.field("started_unix_s", view.directory->started_unix_s);
    json.field("config_file", view.directory->config_file.view());
    json.field("rx_arena_bytes", view.directory->rx_arena_bytes);
    json.field("rx_slot_bytes", view.directory->rx_slot_bytes);
    write_shards(json, view);
    write_interfaces(json, view);
    json.key("live");
    json.begin_object();
    json.field("connections", live.connections);
    if (!view.tables.empty()) json.field("blocks", live.blocks);
    json.field("listeners", live.listeners);
    json.field("sessions", live.sessions);
    json.field("observers", live.observers);
    json.field("channels", live.channels);
    json.field("rx_slots_held", live.rx_slots_held);
    json.end_object();
    json.end_object();
    return out + "\n";
}

std::string status_text(const View& view) {
    const Live live = count_live(view);
    const shm::Directory& directory = *view.directory;
    std::string out = "chirud " + printable(directory.release.view()) + "  pid " +
                      std::to_string(directory.daemon_pid) + "  " + daemon_state(view) +
                      "  up " + duration_text(view.now_us - directory.started_us) + "\n";
    out += "config       " + printable(directory.config_file.view()) + "\n";
    for (const Interface& interface : interfaces(directory)) {
        out += "interface    " + printable(interface.info.name.view());
        for (std::size_t i = 0; i < interface.info.address_count && i < shm::kMaxAddresses; ++i) {
            const shm::AddressInfo& address = interface.info.addresses[i];
            out += (i == 0 ? "  " : ", ") + address.prefix.to_string();
            if (address.state != shm::AddressState::Preferred)
                out += std::string(" (") + to_string(address.state) + ")";
        }
        out += "\n";
    }
    for (std::uint32_t i = 0; i < view.shard_count(); ++i) {
        out += "shard " + std::to_string(i) + "      core " +
               std::to_string(directory.shards[i].core.load(std::memory_order_relaxed)) + "  " +
               shard_state(view, i);
        if (std::string_view(shard_state(view, i)) == "stuck")
            out += " for " + duration_text(turn_age_us(view, i));
        out += "  busy " + rate_text(busy_percent(view, i)) + "% since the start\n";
    }
    out += "sessions     " + counted(live.sessions, "client") + ", " +
           counted(live.channels, "channel") + "\n";
    out += "connections  " + std::to_string(live.connections) + " of clients";
    if (!view.tables.empty()) out += ", " + counted(live.blocks, "block") + " in use";
    out += "\n";
    out += "listeners    " + std::to_string(live.listeners) + "\n";
    out += "RX buffers   " + std::to_string(live.rx_slots_held) + " held by clients, arena " +
           bytes_text(directory.rx_arena_bytes) + "\n";
    return out;
}

}  // namespace

std::string show_status(const View& view, Form form) {
    return form == Form::Json ? status_json(view) : status_text(view);
}

}  // namespace chiru::cli
