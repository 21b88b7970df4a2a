// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.hpp"
#include "test/cli/golden.hpp"
#include "test/cli/machine.hpp"

#include <catch2/catch.hpp>

#include <chrono>

using namespace chiru;
using namespace chiru::cli;
using test::check_golden;
using test::Machine;

namespace {

std::size_t lines(const std::string& text) {
    return static_cast<std::size_t>(std::ranges::count(text, '\n'));
}

std::string conns(const Machine& machine, const ConnsOptions& options) {
    const Result<std::string, std::string> text =
        show_conns(machine.view(), options, Form::Text);
    REQUIRE(text);
    return *text;
}

}  // namespace

TEST_CASE("every command prints what its golden file says", "[cli]") {
    const Machine machine;
    const View view = machine.view();
    for (const auto& [form, suffix] : {std::pair(Form::Text, ".txt"), {Form::Json, ".json"}}) {
        const std::string end = suffix;
        check_golden("status" + end, show_status(view, form));
        check_golden("ports" + end, show_ports(view, form));
        check_golden("routes" + end, show_routes(view, form));
        check_golden("neigh" + end, show_neighbors(view, form));
        check_golden("paths" + end, show_paths(view, form));
        check_golden("clients" + end, show_clients(view, {true, Digits::Rounded}, form));
        check_golden("topology" + end, show_topology(view, Drawing::Boxes, form));
        check_golden("conns" + end, *show_conns(view, {}, form));
        const StatsSample sample = sample_stats(view, Machine::kNowUs);
        check_golden("stats" + end, show_stats(view, sample, {}, form));
    }
    check_golden("topology-ascii.txt", show_topology(view, Drawing::Ascii, Form::Text));
}

TEST_CASE("somebody who may not read the tables still sees the rest", "[cli]") {
    const Machine machine;
    const View view = machine.without_tables();
    check_golden("status-without-tables.txt", show_status(view, Form::Text));
    check_golden("topology-without-tables.txt",
                 show_topology(view, Drawing::Boxes, Form::Text));
}

TEST_CASE("a daemon with nothing in it has something to say for every command", "[cli]") {
    const auto directory = std::make_unique<shm::Directory>();
    View view;
    view.directory = directory.get();
    for (const Form form : {Form::Text, Form::Json}) {
        CHECK_FALSE(show_status(view, form).empty());
        CHECK_FALSE(show_ports(view, form).empty());
        CHECK_FALSE(show_routes(view, form).empty());
        CHECK_FALSE(show_neighbors(view, form).empty());
        CHECK_FALSE(show_paths(view, form).empty());
        CHECK_FALSE(show_clients(view, {}, form).empty());
        CHECK_FALSE(show_topology(view, Drawing::Boxes, form).empty());
        CHECK_FALSE(show_conns(view, {}, form)->empty());
        CHECK_FALSE(show_stats(view, sample_stats(view, 0), {}, form).empty());
    }
}

TEST_CASE("connections are chosen by state, port, process and shard", "[cli]") {
    const Machine machine;
    CHECK(lines(conns(machine, {.states = {"listen"}})) == 2);
    CHECK(lines(conns(machine, {.listeners_only = true})) == 2);
    CHECK(lines(conns(machine, {.states = {"established"}})) == 3);
    CHECK(lines(conns(machine, {.states = {"time_wait", "Established"}})) == 4);
    CHECK(lines(conns(machine, {.port = 40'002})) == 2);
    CHECK(conns(machine, {.port = 1}) == "no connections\n");
    CHECK(conns(machine, {.pid = 888}) == "no connections\n");
    CHECK(lines(conns(machine, {.pid = 777})) == 2 + 1 + 3);
    CHECK(lines(conns(machine, {.states = {"all"}, .shard = 1})) == 2 + 1 + 2);
    const auto wrong = show_conns(machine.view(), {.states = {"open"}}, Form::Text);
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().find("no such state: open") == 0);
    CHECK(wrong.error().find("TIME-WAIT") != std::string::npos);
    CHECK_FALSE(show_conns(machine.view(), {.states = {"listen", "open"}}, Form::Text));
}

TEST_CASE("connections are sorted by what is asked, the largest first, up to the limit", "[cli]") {
    const Machine machine;
    const std::string text =
        conns(machine, {.states = {"established", "time-wait"}, .sort = "rx-bytes", .limit = 2});
    CHECK(lines(text) == 3);
    CHECK(text.find("[fd07::1]:40002") < text.find("10.7.0.1:40001"));
    CHECK(text.find("TIME-WAIT") == std::string::npos);
    CHECK(lines(conns(machine, {.states = {"established"}, .limit = 1})) == 2);
    for (const std::string& key : conns_sort_keys())
        CHECK(lines(conns(machine, {.states = {"established"}, .sort = key})) == 3);
}

TEST_CASE("exact digits are all digits", "[cli]") {
    const Machine machine;
    const std::string text = conns(machine, {.port = 40'002, .digits = Digits::Exact});
    CHECK(text.find(" 2000000 ") != std::string::npos);
    CHECK(text.find(" 1048576 ") != std::string::npos);
}

TEST_CASE("what a client calls itself cannot speak to the terminal", "[cli][hostile]") {
    const Machine machine;
    for (const std::string& text :
         {show_clients(machine.view(), {}, Form::Text),
          show_topology(machine.view(), Drawing::Ascii, Form::Text)})
        CHECK(text.find('\x1b') == std::string::npos);
    const std::string json = show_clients(machine.view(), {}, Form::Json);
    CHECK(json.find("agent\\u001b[2J") != std::string::npos);
}

TEST_CASE("tables that point outside their region are refused", "[cli][hostile]") {
    Machine machine;
    const shm::TableRef good = machine.tables(0).connections;
    const auto refused = [&](const shm::TableRef& table) {
        machine.tables(0).connections = table;
        return !TablesView::attach(machine.tables_region(0));
    };
    CHECK_FALSE(refused(good));
    CHECK(refused({good.offset, good.stride, 1u << 30}));
    CHECK(refused({~0ull - 100, good.stride, 1}));
    CHECK(refused({good.offset, 8, 1}));
    CHECK_FALSE(refused({~0ull, 0, 0}));  // an empty table lies anywhere
    machine.tables(0).connections = good;
    machine.tables(0).connections_high = ~0u;  // more than there are: bounded by the capacity
    std::size_t seen = 0;
    TablesView::attach(machine.tables_region(0))->for_each_connection([&](const auto&) { ++seen; });
    CHECK(seen == 2);
    machine.tables(0).version = 99;
    CHECK(TablesView::attach(machine.tables_region(0)).error().find("version 99") !=
          std::string::npos);
    CHECK_FALSE(TablesView::attach(machine.tables_region(0).first(100)));
}

TEST_CASE("a directory of another version is refused by name", "[cli]") {
    Machine machine;
    shm::Directory& directory = machine.directory();
    const auto region = std::as_bytes(std::span(&directory, 1));
    REQUIRE(attach_directory(region));
    directory.version = 99;
    CHECK(attach_directory(region).error().find("99 there") != std::string::npos);
    directory.magic.store(0);
    CHECK(attach_directory(region).error().find("not finished starting") != std::string::npos);
    CHECK_FALSE(attach_directory(region.first(4096)));
}

TEST_CASE("a shard that is awake and does not turn is stuck", "[cli]") {
    Machine machine;
    machine.directory().shards[0].alive_us.store(Machine::kNowUs - 5'000'000);
    CHECK(std::string(shard_state(machine.view(), 0)) == "stuck");
    CHECK(show_status(machine.view(), Form::Text).find("stuck for 5.00s") != std::string::npos);
    CHECK(std::string(shard_state(machine.view(), 1)) == "asleep");
}

TEST_CASE("counters are filtered by parts of names and summed over shards", "[cli]") {
    const Machine machine;
    const View view = machine.view();
    const StatsSample sample = sample_stats(view, Machine::kNowUs);
    const std::string some = show_stats(view, sample, {.filters = {"frames"}}, Form::Text);
    CHECK(lines(some) == 2);
    CHECK(some.find("2000001") != std::string::npos);
    CHECK(lines(show_stats(view, sample, {.zeros = true}, Form::Text)) == 5);
    const std::string one =
        show_stats(view, sample, {.filters = {"rx.frames"}, .shard = 1}, Form::Text);
    CHECK(one.find("1000001") != std::string::npos);
    const std::string wide =
        show_stats(view, sample, {.filters = {"rx.frames"}, .per_shard = true}, Form::Text);
    CHECK(wide.find("SHARD 1") != std::string::npos);
}

TEST_CASE("a rate is what was counted between two samples, by their distance", "[cli]") {
    Machine machine;
    const View view = machine.view();
    const StatsSample before = sample_stats(view, Machine::kNowUs);
    machine.directory().shards[0].counters.add(static_cast<shm::Counter>(0), 500);
    machine.directory().shards[1].counters.add(static_cast<shm::Counter>(0), 100);
    const StatsSample after = sample_stats(view, Machine::kNowUs + 2'000'000);
    const std::string text = show_rates(view, before, after, {}, Form::Text);
    CHECK(lines(text) == 2);
    CHECK(text.find("300") != std::string::npos);
    CHECK(show_rates(view, after, after, {}, Form::Text) == "nothing moved\n");
    CHECK(show_rates(view, before, after, {}, Form::Json).find("\"rx.frames\":300,") !=
          std::string::npos);
}

TEST_CASE("a hundred thousand connections are printed in well under a second", "[cli]") {
    constexpr std::uint32_t kMany = 100'000;
    const Machine machine;
    std::vector<shm::ConnectionInfo> region(kMany + 1);
    auto* header = new (region.data()) shm::ShardTables;
    header->connections = {sizeof(shm::ConnectionInfo), sizeof(shm::ConnectionInfo), kMany};
    header->connections_high = kMany;
    for (std::uint32_t i = 0; i < kMany; ++i) {
        region[i + 1].state = shm::TcpState::Established;
        region[i + 1].remote_address = IpAddress::v4(0x0a07'0000 + i);
        region[i + 1].rx_bytes = i;
    }
    View view = machine.without_tables();
    view.tables.push_back(*TablesView::attach(std::as_bytes(std::span(region))));
    const auto start = std::chrono::steady_clock::now();
    CHECK(lines(*show_conns(view, {}, Form::Text)) == kMany + 1);
    CHECK(lines(*show_conns(view, {.sort = "rx-bytes", .limit = 10}, Form::Text)) == 11);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    CHECK(took.count() < 10);  // 0.3 s on an idle machine; sanitizers and neighbours are slower
}
