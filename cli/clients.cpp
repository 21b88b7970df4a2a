// SPDX-License-Identifier: Apache-2.0
//
// chiructl clients: the attached processes, what they hold and what they moved.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

#include <pwd.h>

#include <array>
#include <utility>

namespace chiru::cli {
namespace {

using Counter = shm::SingleWriterCounter shm::SessionCounters::*;
using NamedCounter = std::pair<const char*, Counter>;
constexpr std::array kSessionCounters{
    NamedCounter{"connections", &shm::SessionCounters::connections},
    NamedCounter{"rx_slots_held", &shm::SessionCounters::rx_slots_held},
    NamedCounter{"datagram_slots_held", &shm::SessionCounters::datagram_slots_held},
    NamedCounter{"rx_bytes", &shm::SessionCounters::rx_bytes},
    NamedCounter{"tx_bytes", &shm::SessionCounters::tx_bytes},
    NamedCounter{"opened", &shm::SessionCounters::opened},
    NamedCounter{"closed", &shm::SessionCounters::closed},
    NamedCounter{"refused", &shm::SessionCounters::refused},
};

std::vector<Session> chosen(const View& view, const ClientsOptions& options) {
    std::vector<Session> found;
    for (const auto& [id, session] : sessions(*view.directory))
        if (session.info.observer == 0 || options.observers) found.push_back(session);
    return found;
}

std::string user_name(std::uint32_t uid) {
    const passwd* user = getpwuid(uid);
    return user != nullptr ? user->pw_name : std::to_string(uid);
}

std::string clients_json(const View& view, const ClientsOptions& options) {
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.key("clients");
    json.begin_array();
    for (const auto& [info, slot] : chosen(view, options)) {
        json.begin_object();
        json.field("session", info.id);
        json.field("pid", info.pid);
        json.field("uid", info.uid);
        json.field("gid", info.gid);
        json.field("program", info.program.view());
        json.field("observer", info.observer != 0);
        json.field("isolation", to_string(info.isolation));
        json.field("channels", info.channels);
        json.field("listeners", info.listeners);
        json.field("tx_arena_bytes", info.tx_arena_bytes);
        json.field("max_connections", info.max_connections);
        json.field("attached_s", (view.now_us - info.attached_us) / 1'000'000);
        for (const auto& [name, counter] : kSessionCounters)
            json.field(name, total(view, slot, counter));
        json.end_object();
    }
    json.end_array();
    json.end_object();
    return out + "\n";
}

}  // namespace

std::string show_clients(const View& view, const ClientsOptions& options, Form form) {
    if (form == Form::Json) return clients_json(view, options);
    Table table({{"SESSION", Align::Right}, {"PROGRAM"}, {"PID", Align::Right}, {"USER"},
                 {"RX"}, {"CHANNELS", Align::Right}, {"LISTENERS", Align::Right},
                 {"CONNS", Align::Right}, {"RX-HELD", Align::Right}, {"RX-BYTES", Align::Right},
                 {"TX-BYTES", Align::Right}, {"OPENED", Align::Right}, {"CLOSED", Align::Right},
                 {"REFUSED", Align::Right}, {"AGE", Align::Right}});
    for (const auto& [info, slot] : chosen(view, options)) {
        const auto sum = [&](Counter counter) { return total(view, slot, counter); };
        const bool observer = info.observer != 0;
        table.add({std::to_string(info.id),
                   printable(info.program.view()) + (observer ? " (observer)" : ""),
                   std::to_string(info.pid), user_name(info.uid),
                   observer ? "-" : to_string(info.isolation), std::to_string(info.channels),
                   std::to_string(info.listeners),
                   std::to_string(sum(&shm::SessionCounters::connections)),
                   std::to_string(sum(&shm::SessionCounters::rx_slots_held) +
                                  sum(&shm::SessionCounters::datagram_slots_held)),
                   bytes_text(sum(&shm::SessionCounters::rx_bytes), options.digits),
                   bytes_text(sum(&shm::SessionCounters::tx_bytes), options.digits),
                   count_text(sum(&shm::SessionCounters::opened), options.digits),
                   count_text(sum(&shm::SessionCounters::closed), options.digits),
                   count_text(sum(&shm::SessionCounters::refused), options.digits),
                   duration_text(view.now_us - info.attached_us)});
    }
    return table.empty() ? "no clients\n" : table.render();
}

}  // namespace chiru::cli
