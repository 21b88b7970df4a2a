// SPDX-License-Identifier: Apache-2.0
//
// chiructl conns: connections and listeners with their owners, as ss(8) shows them.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

#include <array>
#include <cctype>
#include <set>
#include <utility>

namespace chiru::cli {
namespace {

using shm::ConnectionInfo;
using shm::ListenerInfo;
using shm::TcpState;
using Owners = std::map<std::uint32_t, Session>;

struct Row {
    std::uint32_t shard = 0;
    ConnectionInfo info;
};

// ---- what is wanted ------------------------------------------------------------------------

std::string upper(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c == '_' ? '-' : static_cast<char>(std::toupper(c));
    return out;
}

Result<std::set<TcpState>, std::string> parse_states(const std::vector<std::string>& names) {
    std::set<TcpState> states;
    for (const std::string& name : names) {
        bool found = false;
        std::string known;
        for (auto state = TcpState::Listen; state <= TcpState::Closed;
             state = static_cast<TcpState>(static_cast<int>(state) + 1)) {
            if (upper(name) == shm::to_string(state) || upper(name) == "ALL") {
                states.insert(state);
                found = true;
            }
            known += std::string(known.empty() ? "" : ", ") + shm::to_string(state);
        }
        if (!found)
            return std::unexpected("no such state: " + name + " (there are " + known + ", ALL)");
    }
    return states;
}

struct Filter {
    std::set<TcpState> states;  ///< empty: all
    const ConnsOptions& options;
    const Owners& owners;

    bool owner_fits(std::uint32_t session) const {
        if (!options.pid) return true;
        const auto owner = owners.find(session);
        return owner != owners.end() && owner->second.info.pid == *options.pid;
    }
    bool state_fits(TcpState state) const { return states.empty() || states.contains(state); }
    bool fits(const ConnectionInfo& info) const {
        const bool port_fits = !options.port || info.local_port == *options.port ||
                               info.remote_port == *options.port;
        return port_fits && state_fits(info.state) && owner_fits(info.session);
    }
    bool fits(const ListenerInfo& info) const {
        return (!options.port || info.port == *options.port) && state_fits(TcpState::Listen) &&
               owner_fits(info.session);
    }
    bool shard_fits(const TablesView& tables) const {
        return !options.shard || tables.shard() == *options.shard;
    }
};

// ---- in which order ------------------------------------------------------------------------

using SortKey = std::pair<const char*, std::uint64_t (*)(const ConnectionInfo&)>;

constexpr std::array kSortKeys{
    SortKey{"rx-bytes", [](const ConnectionInfo& c) { return c.rx_bytes; }},
    SortKey{"tx-bytes", [](const ConnectionInfo& c) { return c.tx_bytes; }},
    SortKey{"rx-packets", [](const ConnectionInfo& c) { return c.rx_segments; }},
    SortKey{"tx-packets", [](const ConnectionInfo& c) { return c.tx_segments; }},
    SortKey{"retransmits",
            [](const ConnectionInfo& c) { return std::uint64_t{c.retransmitted_segments}; }},
    SortKey{"out-of-order",
            [](const ConnectionInfo& c) { return std::uint64_t{c.out_of_order_segments}; }},
    SortKey{"rtt", [](const ConnectionInfo& c) { return std::uint64_t{c.srtt_us}; }},
    SortKey{"cwnd", [](const ConnectionInfo& c) { return std::uint64_t{c.cwnd_bytes}; }},
    SortKey{"unread", [](const ConnectionInfo& c) { return std::uint64_t{c.unread_bytes}; }},
    SortKey{"unsent", [](const ConnectionInfo& c) { return std::uint64_t{c.unsent_bytes()}; }},
    // The oldest first: what was opened at the smallest time has the largest complement.
    SortKey{"age",
            [](const ConnectionInfo& c) { return ~static_cast<std::uint64_t>(c.opened_us); }},
};

/// The largest first, as far as the limit goes.
void sort_rows(std::vector<Row>& rows, const ConnsOptions& options) {
    const auto key = std::ranges::find(kSortKeys, options.sort,
                                       [](const SortKey& k) { return std::string_view(k.first); });
    if (key == kSortKeys.end()) return;
    const std::size_t count =
        options.limit == 0 ? rows.size() : std::min(options.limit, rows.size());
    std::ranges::partial_sort(rows, rows.begin() + static_cast<std::ptrdiff_t>(count),
                              [&](const Row& a, const Row& b) {
                                  return key->second(a.info) > key->second(b.info);
                              });
    rows.resize(count);
}

// ---- what is there -------------------------------------------------------------------------

/// Every shard has its own record of a listener; people know one.
std::vector<ListenerInfo> find_listeners(const View& view, const Filter& filter) {
    std::map<std::uint32_t, ListenerInfo> found;
    for (const TablesView& tables : view.tables) {
        if (!filter.shard_fits(tables)) continue;
        tables.for_each_listener([&](const ListenerInfo& info) {
            if (!filter.fits(info)) return;
            const auto [at, first] = found.try_emplace(info.listener, info);
            if (first) return;
            at->second.syn_received += info.syn_received;
            at->second.waiting += info.waiting;
            at->second.accepted += info.accepted;
            at->second.refused += info.refused;
        });
    }
    std::vector<ListenerInfo> listeners;
    for (const auto& [id, info] : found) listeners.push_back(info);
    return listeners;
}

std::vector<Row> find_connections(const View& view, const Filter& filter) {
    const ConnsOptions& options = filter.options;
    std::vector<Row> rows;
    if (options.listeners_only) return rows;
    const bool stop_early = options.limit != 0 && options.sort.empty();
    for (const TablesView& tables : view.tables) {
        if (!filter.shard_fits(tables)) continue;
        tables.for_each_connection([&](const ConnectionInfo& info) {
            if (stop_early && rows.size() >= options.limit) return;
            if (filter.fits(info)) rows.push_back({tables.shard(), info});
        });
    }
    sort_rows(rows, options);
    return rows;
}

Endpoint local(const ConnectionInfo& c) {
    return {c.local_address, c.local_port};
}

Endpoint remote(const ConnectionInfo& c) {
    return {c.remote_address, c.remote_port};
}

std::int32_t pid_of(const Owners& owners, std::uint32_t session) {
    const auto owner = owners.find(session);
    return owner == owners.end() ? 0 : owner->second.info.pid;
}

// ---- JSON ----------------------------------------------------------------------------------

void write_owner(JsonWriter& json, const Owners& owners, std::uint32_t session) {
    json.field("session", session);
    const auto owner = owners.find(session);
    json.key("pid");
    if (owner == owners.end()) json.null();
    else json.value(owner->second.info.pid);
    json.key("program");
    if (owner == owners.end()) json.null();
    else json.value(owner->second.info.program.view());
}

void write_connection(JsonWriter& json, const View& view, const Owners& owners, const Row& row) {
    const ConnectionInfo& c = row.info;
    json.begin_object();
    json.field("shard", row.shard);
    json.field("state", shm::to_string(c.state));
    json.field("local", local(c).to_string());
    json.field("remote", remote(c).to_string());
    write_owner(json, owners, c.session);
    json.field("channel", c.channel);
    json.field("interface", c.interface);
    json.field("rx_packets", c.rx_segments);
    json.field("rx_bytes", c.rx_bytes);
    json.field("tx_packets", c.tx_segments);
    json.field("tx_bytes", c.tx_bytes);
    json.field("retransmits", c.retransmitted_segments);
    json.field("retransmitted_bytes", c.retransmitted_bytes);
    json.field("out_of_order", c.out_of_order_segments);
    json.field("srtt_us", c.srtt_us);
    json.field("rttvar_us", c.rttvar_us);
    json.field("min_rtt_us", c.min_rtt_us);
    json.field("rto_us", c.rto_us);
    json.field("cwnd_bytes", c.cwnd_bytes);
    json.field("ssthresh_bytes", c.ssthresh_bytes);
    json.field("send_window_bytes", c.snd_wnd);
    json.field("receive_window_bytes", c.rcv_wnd);
    json.field("in_flight_bytes", c.snd_nxt - c.snd_una);
    json.field("unsent_bytes", c.unsent_bytes());
    json.field("unread_bytes", c.unread_bytes);
    json.field("out_of_order_bytes", c.out_of_order_bytes);
    json.field("receive_buffer_bytes", c.rcv_buffer_bytes);
    json.field("receive_buffer_fixed", c.rcv_fixed != 0);
    json.field("receive_buffers_held", c.rx_slots);
    json.field("mss", c.mss);
    json.field("timestamps", (c.negotiated & shm::kNegotiatedTimestamps) != 0);
    json.field("sack", (c.negotiated & shm::kNegotiatedSack) != 0);
    json.field("ecn", (c.negotiated & shm::kNegotiatedEcn) != 0);
    json.field("window_scale", (c.negotiated & shm::kNegotiatedWindowScale) != 0);
    json.field("send_shift", c.snd_shift);
    json.field("receive_shift", c.rcv_shift);
    json.field("congestion", to_string(static_cast<shm::CongestionAlgorithm>(c.congestion)));
    json.field("delivery_rate", c.delivery_kbps * std::uint64_t{1000});
    json.field("pacing_rate", c.pacing_kbps * std::uint64_t{1000});
    json.field("timeouts", c.timeouts);
    json.field("age_us", view.now_us - c.opened_us);
    json.field("received_us_ago", view.now_us - c.last_received_us);
    json.field("sent_us_ago", view.now_us - c.last_sent_us);
    json.end_object();
}

void write_listener(JsonWriter& json, const Owners& owners, const ListenerInfo& info) {
    json.begin_object();
    json.field("state", "LISTEN");
    json.field("local", Endpoint{info.address, info.port}.to_string());
    json.field("remote", "*");
    write_owner(json, owners, info.session);
    json.field("listener", info.listener);
    json.field("v6_only", info.v6_only != 0);
    json.field("backlog", info.backlog);
    json.field("syn_received", info.syn_received);
    json.field("waiting", info.waiting);
    json.field("accepted", info.accepted);
    json.field("refused", info.refused);
    json.end_object();
}

// ---- text ----------------------------------------------------------------------------------

/// "ts sack ws 7/7 ecn": what both sides agreed on, with the shifts of our and their windows.
std::string negotiated_text(const ConnectionInfo& c) {
    std::string out;
    const auto add = [&out](const std::string& word) { out += (out.empty() ? "" : " ") + word; };
    if ((c.negotiated & shm::kNegotiatedTimestamps) != 0) add("ts");
    if ((c.negotiated & shm::kNegotiatedSack) != 0) add("sack");
    if ((c.negotiated & shm::kNegotiatedWindowScale) != 0)
        add("ws " + std::to_string(c.rcv_shift) + "/" + std::to_string(c.snd_shift));
    if ((c.negotiated & shm::kNegotiatedEcn) != 0) add("ecn");
    return out.empty() ? "-" : out;
}

std::string process_text(const Owners& owners, std::uint32_t session) {
    const std::int32_t pid = pid_of(owners, session);
    return pid == 0 ? "-" : program_name(owners, session) + "/" + std::to_string(pid);
}

std::string ssthresh_text(std::uint32_t bytes, Digits digits) {
    return bytes >= 0x7fff'ffff ? "-" : bytes_text(bytes, digits);  // not set yet
}

std::string pacing_text(std::uint32_t kbps, Digits digits) {
    return kbps == 0 ? "-" : bytes_text(kbps * std::uint64_t{1000}, digits) + "/s";
}

std::string connections_text(const View& view, const Owners& owners, const std::vector<Row>& rows,
                             Digits digits) {
    Table table({{"STATE"}, {"LOCAL"}, {"REMOTE"}, {"PROCESS"}, {"RX-PKT", Align::Right},
                 {"RX-BYTES", Align::Right}, {"TX-PKT", Align::Right}, {"TX-BYTES", Align::Right},
                 {"RETR", Align::Right}, {"OOO", Align::Right}, {"RTT", Align::Right},
                 {"CWND", Align::Right}, {"SSTHRESH", Align::Right}, {"SND-WND", Align::Right},
                 {"RCV-WND", Align::Right}, {"RCV-BUF", Align::Right}, {"UNSENT", Align::Right},
                 {"UNREAD", Align::Right}, {"MSS", Align::Right}, {"CC"},
                 {"PACING", Align::Right}, {"OPTIONS"}, {"AGE", Align::Right},
                 {"SHARD", Align::Right}});
    for (const auto& [shard, c] : rows)
        table.add({shm::to_string(c.state), local(c).to_string(), remote(c).to_string(),
                   process_text(owners, c.session), count_text(c.rx_segments, digits),
                   bytes_text(c.rx_bytes, digits), count_text(c.tx_segments, digits),
                   bytes_text(c.tx_bytes, digits), count_text(c.retransmitted_segments, digits),
                   count_text(c.out_of_order_segments, digits),
                   c.srtt_us == 0 ? "-" : duration_text(c.srtt_us),
                   bytes_text(c.cwnd_bytes, digits), ssthresh_text(c.ssthresh_bytes, digits),
                   bytes_text(c.snd_wnd, digits), bytes_text(c.rcv_wnd, digits),
                   bytes_text(c.rcv_buffer_bytes, digits),
                   bytes_text(c.unsent_bytes(), digits), bytes_text(c.unread_bytes, digits),
                   std::to_string(c.mss),
                   to_string(static_cast<shm::CongestionAlgorithm>(c.congestion)),
                   pacing_text(c.pacing_kbps, digits), negotiated_text(c),
                   duration_text(view.now_us - c.opened_us), std::to_string(shard)});
    return table.empty() ? std::string() : table.render();
}

std::string listeners_text(const Owners& owners, const std::vector<ListenerInfo>& listeners) {
    Table table({{"STATE"}, {"LOCAL"}, {"PROCESS"}, {"BACKLOG", Align::Right},
                 {"SYN-RCVD", Align::Right}, {"WAITING", Align::Right},
                 {"ACCEPTED", Align::Right}, {"REFUSED", Align::Right}});
    for (const ListenerInfo& info : listeners)
        table.add({"LISTEN", Endpoint{info.address, info.port}.to_string(),
                   process_text(owners, info.session), std::to_string(info.backlog),
                   std::to_string(info.syn_received), std::to_string(info.waiting),
                   std::to_string(info.accepted), std::to_string(info.refused)});
    return table.empty() ? std::string() : table.render();
}

}  // namespace

std::vector<std::string> conns_sort_keys() {
    std::vector<std::string> names;
    for (const auto& [name, key] : kSortKeys) names.emplace_back(name);
    return names;
}

Result<std::string, std::string> show_conns(const View& view, const ConnsOptions& options,
                                            Form form) {
    const Result<std::set<TcpState>, std::string> states = parse_states(options.states);
    if (!states) return std::unexpected(states.error());
    const Owners owners = sessions(*view.directory);
    const Filter filter{*states, options, owners};
    const std::vector<ListenerInfo> listeners = find_listeners(view, filter);
    const std::vector<Row> rows = find_connections(view, filter);
    if (form == Form::Text) {
        const std::string above = listeners_text(owners, listeners);
        const std::string below = connections_text(view, owners, rows, options.digits);
        const std::string text = above + (above.empty() || below.empty() ? "" : "\n") + below;
        return text.empty() ? "no connections\n" : text;
    }
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.key("connections");
    json.begin_array();
    for (const ListenerInfo& info : listeners) write_listener(json, owners, info);
    for (const Row& row : rows) write_connection(json, view, owners, row);
    json.end_array();
    json.end_object();
    return out + "\n";
}

}  // namespace chiru::cli
