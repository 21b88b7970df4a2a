// SPDX-License-Identifier: Apache-2.0
//
// chiructl topology: port -> interface -> shard -> channel -> client, as a tree. A channel reaches
// every shard, so it is drawn where it has connections; the rest are counted in one line.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

#include <tuple>

namespace chiru::cli {
namespace {

struct Node {
    std::string text;
    std::vector<Node> children;
};

/// Live connections by (interface, shard, channel), and listeners by session.
struct Census {
    std::map<std::tuple<std::size_t, std::uint32_t, std::size_t>, std::uint64_t> connections;
    std::map<std::uint32_t, std::map<std::uint32_t, std::string>> listeners;
    bool known = false;  ///< the tables may be read
};

Census take_census(const View& view) {
    Census census;
    census.known = !view.tables.empty();
    for (const TablesView& tables : view.tables) {
        tables.for_each_connection([&](const shm::ConnectionInfo& c) {
            if (c.session != 0) ++census.connections[{c.interface, tables.shard(), c.channel}];
        });
        tables.for_each_listener([&](const shm::ListenerInfo& l) {
            census.listeners[l.session][l.listener] = Endpoint{l.address, l.port}.to_string();
        });
    }
    return census;
}

std::string address_list(const shm::InterfaceInfo& info) {
    std::string out;
    for (std::size_t i = 0; i < info.address_count && i < shm::kMaxAddresses; ++i)
        out += (i == 0 ? "" : ", ") + info.addresses[i].prefix.to_string();
    return out.empty() ? "no address" : out;
}

std::string client_text(const std::map<std::uint32_t, Session>& clients, std::uint32_t session) {
    const auto client = clients.find(session);
    if (client == clients.end()) return "session " + std::to_string(session);
    return "client " + std::to_string(session) + ": " + program_name(clients, session) + " (pid " +
           std::to_string(client->second.info.pid) + ")";
}

Node shard_node(const View& view, const Census& census,
                const std::map<std::uint32_t, Session>& clients,
                const std::vector<Channel>& all_channels, std::size_t interface,
                std::uint32_t shard) {
    const shm::ShardPage& page = view.directory->shards[shard];
    Node node{"shard " + std::to_string(shard) + "  core " +
                  std::to_string(page.core.load(std::memory_order_relaxed)) + "  " +
                  shard_state(view, shard),
              {}};
    std::size_t idle = 0;
    for (const Channel& channel : all_channels) {
        const auto found = census.connections.find({interface, shard, channel.number});
        if (census.known && found == census.connections.end()) {
            ++idle;
            continue;
        }
        Node leaf{"channel " + std::to_string(channel.number), {}};
        if (census.known) leaf.text += "  " + counted(found->second, "connection");
        leaf.children.push_back({client_text(clients, channel.session), {}});
        node.children.push_back(std::move(leaf));
    }
    if (idle != 0) {
        const char* which = node.children.empty() ? "" : " more";
        const std::string text = counted(idle, "channel") + which + " without connections here";
        node.children.push_back({text, {}});
    }
    return node;
}

Node clients_node(const View& view, const Census& census,
                  const std::map<std::uint32_t, Session>& clients,
                  const std::vector<Channel>& all_channels) {
    Node node{"clients", {}};
    for (const auto& [id, session] : clients) {
        if (session.info.observer != 0) continue;
        Node client{client_text(clients, id), {}};
        client.text += "  " + counted(total(view, session.slot,
                                            &shm::SessionCounters::connections), "connection");
        std::string numbers;
        for (const Channel& channel : all_channels)
            if (channel.session == id) numbers += " " + std::to_string(channel.number);
        client.children.push_back({numbers.empty() ? "no channel" : "channels" + numbers, {}});
        if (const auto listening = census.listeners.find(id); listening != census.listeners.end())
            for (const auto& [listener, endpoint] : listening->second)
                client.children.push_back({"listens on " + endpoint, {}});
        node.children.push_back(std::move(client));
    }
    if (node.children.empty()) node.children.push_back({"none attached", {}});
    return node;
}

Node build(const View& view) {
    const Census census = take_census(view);
    const std::map<std::uint32_t, Session> clients = sessions(*view.directory);
    const std::vector<Channel> all_channels = channels(*view.directory);
    const std::vector<Interface> all_interfaces = interfaces(*view.directory);
    Node root{"chirud " + printable(view.directory->release.view()) + "  pid " +
                  std::to_string(view.directory->daemon_pid),
              {}};
    for (const auto& [port_number, port] : ports(*view.directory)) {
        Node port_node{"port " + printable(port.name.view()) + "  " +
                           printable(port.driver.view()) + "  " +
                           (port.link_up != 0 ? "up" : "down") + "  mtu " +
                           std::to_string(port.mtu) + "  " + chiru::to_string(port.mac),
                       {}};
        for (const auto& [number, info] : all_interfaces) {
            if (info.port != port_number) continue;
            Node interface{"interface " + printable(info.name.view()) + "  " + address_list(info),
                           {}};
            if (info.vlan != 0) interface.text += "  vlan " + std::to_string(info.vlan);
            for (std::uint32_t shard = 0; shard < view.shard_count(); ++shard)
                interface.children.push_back(
                    shard_node(view, census, clients, all_channels, number, shard));
            port_node.children.push_back(std::move(interface));
        }
        root.children.push_back(std::move(port_node));
    }
    root.children.push_back(clients_node(view, census, clients, all_channels));
    return root;
}

struct Strokes {
    const char* branch;
    const char* last;
    const char* pass;
    const char* none;
};
constexpr Strokes kBoxes{"├─ ", "└─ ", "│  ", "   "};
constexpr Strokes kAscii{"|- ", "`- ", "|  ", "   "};

void draw(std::string& out, const Node& node, const std::string& indent, const Strokes& strokes) {
    out += node.text + "\n";
    for (std::size_t i = 0; i < node.children.size(); ++i) {
        const bool last = i + 1 == node.children.size();
        out += indent + (last ? strokes.last : strokes.branch);
        draw(out, node.children[i], indent + (last ? strokes.none : strokes.pass), strokes);
    }
}

void write_shards(JsonWriter& json, const View& view, const Census& census,
                  const std::vector<Channel>& all_channels, std::size_t interface) {
    json.key("shards");
    json.begin_array();
    for (std::uint32_t shard = 0; shard < view.shard_count(); ++shard) {
        json.begin_object();
        json.field("shard", shard);
        json.field("core", view.directory->shards[shard].core.load(std::memory_order_relaxed));
        json.field("state", shard_state(view, shard));
        json.key("channels");
        json.begin_array();
        for (const Channel& channel : all_channels) {
            json.begin_object();
            json.field("channel", channel.number);
            json.field("session", channel.session);
            const auto found = census.connections.find({interface, shard, channel.number});
            if (census.known)
                json.field("connections",
                           found == census.connections.end() ? std::uint64_t{0} : found->second);
            json.end_object();
        }
        json.end_array();
        json.end_object();
    }
    json.end_array();
}

std::string topology_json(const View& view) {
    const Census census = take_census(view);
    const std::vector<Channel> all_channels = channels(*view.directory);
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.field("pid", view.directory->daemon_pid);
    json.key("ports");
    json.begin_array();
    for (const auto& [port_number, port] : ports(*view.directory)) {
        json.begin_object();
        json.field("name", port.name.view());
        json.field("driver", port.driver.view());
        json.field("link_up", port.link_up != 0);
        json.key("interfaces");
        json.begin_array();
        for (const auto& [number, info] : interfaces(*view.directory)) {
            if (info.port != port_number) continue;
            json.begin_object();
            json.field("name", info.name.view());
            json.field("vlan", info.vlan);
            json.key("addresses");
            json.begin_array();
            for (std::size_t i = 0; i < info.address_count && i < shm::kMaxAddresses; ++i)
                json.value(info.addresses[i].prefix.to_string());
            json.end_array();
            write_shards(json, view, census, all_channels, number);
            json.end_object();
        }
        json.end_array();
        json.end_object();
    }
    json.end_array();
    json.key("clients");
    json.begin_array();
    for (const auto& [id, session] : sessions(*view.directory)) {
        if (session.info.observer != 0) continue;
        json.begin_object();
        json.field("session", id);
        json.field("pid", session.info.pid);
        json.field("program", session.info.program.view());
        json.end_object();
    }
    json.end_array();
    json.end_object();
    return out + "\n";
}

}  // namespace

std::string show_topology(const View& view, Drawing drawing, Form form) {
    if (form == Form::Json) return topology_json(view);
    std::string out;
    draw(out, build(view), "", drawing == Drawing::Boxes ? kBoxes : kAscii);
    return out;
}

}  // namespace chiru::cli
