// SPDX-License-Identifier: Apache-2.0
//
// chiructl routes: where packets go, by longest prefix.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

namespace chiru::cli {
namespace {

struct Entry {
    shm::RouteInfo route;
    std::string interface;
};

/// IPv4 before IPv6, then as the lookup prefers them: longest prefix first.
std::vector<Entry> entries(const View& view) {
    std::vector<Entry> found;
    for (const Interface& interface : interfaces(*view.directory))
        for (std::size_t i = 0; i < interface.info.route_count && i < shm::kMaxRoutes; ++i)
            found.push_back({interface.info.routes[i], printable(interface.info.name.view())});
    std::ranges::stable_sort(found, [](const Entry& a, const Entry& b) {
        const IpPrefix& left = a.route.to;
        const IpPrefix& right = b.route.to;
        if (left.address.is_v4() != right.address.is_v4()) return left.address.is_v4();
        if (left.length != right.length) return left.length > right.length;
        return left.address < right.address;
    });
    return found;
}

std::string destination(const IpPrefix& to) {
    if (to.length != 0) return to.to_string();
    return to.address.is_v4() ? "default" : "default (IPv6)";
}

std::string routes_json(const View& view) {
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.key("routes");
    json.begin_array();
    for (const Entry& entry : entries(view)) {
        json.begin_object();
        json.field("to", entry.route.to.to_string());
        json.key("via");
        if (entry.route.via.is_unspecified()) json.null();
        else json.value(entry.route.via.to_string());
        json.field("interface", entry.interface);
        json.field("origin", to_string(entry.route.origin));
        json.end_object();
    }
    json.end_array();
    json.end_object();
    return out + "\n";
}

}  // namespace

std::string show_routes(const View& view, Form form) {
    if (form == Form::Json) return routes_json(view);
    Table table({{"TO"}, {"VIA"}, {"INTERFACE"}, {"ORIGIN"}});
    for (const Entry& entry : entries(view)) {
        const bool on_link = entry.route.via.is_unspecified();
        table.add({destination(entry.route.to), on_link ? "on link" : entry.route.via.to_string(),
                   entry.interface, to_string(entry.route.origin)});
    }
    return table.empty() ? "no routes\n" : table.render();
}

}  // namespace chiru::cli
