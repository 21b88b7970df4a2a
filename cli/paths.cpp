// SPDX-License-Identifier: Apache-2.0
//
// chiructl paths: to which hosts packets of the interface's size do not get through, and what does.
// Every shard remembers by itself, and tells the others; one line shows what they agree on.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

#include <tuple>

namespace chiru::cli {
namespace {

struct Entry {
    shm::PathMtuInfo info;
    std::vector<std::uint32_t> shards;
};

const char* to_string(shm::PathMtuOrigin origin) {
    switch (origin) {
    case shm::PathMtuOrigin::Told: return "router";
    case shm::PathMtuOrigin::Found: return "probing";
    case shm::PathMtuOrigin::Shared: return "another shard";
    }
    return "?";
}

std::vector<Entry> entries(const View& view) {
    std::vector<Entry> all;
    for (const TablesView& tables : view.tables)
        tables.for_each_path_mtu([&](const shm::PathMtuInfo& info) {
            if (info.until_us > view.now_us) all.push_back({info, {tables.shard()}});
        });
    // Who learnt it first says how; the others have it from there.
    std::ranges::sort(all, [](const Entry& a, const Entry& b) {
        return std::tuple(a.info.remote, a.info.mtu, a.info.origin, a.shards[0]) <
               std::tuple(b.info.remote, b.info.mtu, b.info.origin, b.shards[0]);
    });
    std::vector<Entry> found;
    for (const Entry& entry : all) {
        const bool same = !found.empty() && found.back().info.remote == entry.info.remote &&
                          found.back().info.mtu == entry.info.mtu;
        if (same) found.back().shards.push_back(entry.shards[0]);
        else found.push_back(entry);
    }
    for (Entry& entry : found) std::ranges::sort(entry.shards);
    return found;
}

std::string paths_json(const View& view) {
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.key("paths");
    json.begin_array();
    for (const Entry& entry : entries(view)) {
        json.begin_object();
        json.field("remote", entry.info.remote.to_string());
        json.field("mtu", entry.info.mtu);
        json.field("origin", to_string(entry.info.origin));
        json.field("expires_us", entry.info.until_us - view.now_us);
        json.key("shards");
        json.begin_array();
        for (const std::uint32_t shard : entry.shards) json.value(shard);
        json.end_array();
        json.end_object();
    }
    json.end_array();
    json.end_object();
    return out + "\n";
}

}  // namespace

std::string show_paths(const View& view, Form form) {
    if (form == Form::Json) return paths_json(view);
    Table table({{"REMOTE"}, {"MTU", Align::Right}, {"FROM"}, {"EXPIRES", Align::Right},
                 {"SHARDS"}});
    for (const Entry& entry : entries(view)) {
        std::string shards;
        for (const std::uint32_t shard : entry.shards)
            shards += (shards.empty() ? "" : ",") + std::to_string(shard);
        table.add({entry.info.remote.to_string(), std::to_string(entry.info.mtu),
                   to_string(entry.info.origin),
                   "in " + duration_text(entry.info.until_us - view.now_us), shards});
    }
    return table.empty() ? "no path is known to be narrower than its interface\n"
                         : table.render();
}

}  // namespace chiru::cli
