// SPDX-License-Identifier: Apache-2.0
//
// chiructl: shows what a running chirud does, by reading its memory. It changes nothing.
#include "cli/commands.hpp"
#include "cli/observer.hpp"
#include "shm/control.hpp"

#include <CLI/CLI.hpp>

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <langinfo.h>
#include <string>
#include <thread>

namespace chiru::cli {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

struct Arguments {
    std::string socket;
    double timeout_s = 2;
    bool json = false;
    bool ascii = false;
    bool exact = false;
    double watch_s = 0;
    std::uint64_t rounds = 0;  ///< of --watch; 0: for ever
    StatsOptions stats;
    ConnsOptions conns;
    ClientsOptions clients;

    Form form() const { return json ? Form::Json : Form::Text; }
    Digits digits() const { return exact ? Digits::Exact : Digits::Rounded; }
};

int fail(const std::string& reason) {
    std::fprintf(stderr, "chiructl: %s\n", reason.c_str());
    return kFailed;
}

/// A reader that went away (chiructl conns | head) is no failure.
int print(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
        return errno == EPIPE ? 0 : fail(std::string("cannot write: ") + std::strerror(errno));
    return 0;
}

bool terminal_draws_boxes() {
    std::setlocale(LC_CTYPE, "");
    return std::string_view(nl_langinfo(CODESET)) == "UTF-8";
}

bool daemon_is_gone(const View& view) {
    return kill(view.directory->daemon_pid, 0) != 0 && errno == ESRCH;
}

int watch_stats(const Observed& observed, const Arguments& arguments) {
    StatsSample before = sample_stats(observed.view, monotonic_us());
    for (std::uint64_t round = 0; arguments.rounds == 0 || round < arguments.rounds; ++round) {
        std::this_thread::sleep_for(std::chrono::duration<double>(arguments.watch_s));
        if (daemon_is_gone(observed.view)) return fail("chirud ended.");
        const StatsSample after = sample_stats(observed.view, monotonic_us());
        std::string text =
            show_rates(observed.view, before, after, arguments.stats, arguments.form());
        if (!arguments.json && round > 0) text = "\n" + text;
        if (const int failed = print(text); failed != 0 || std::ferror(stdout) != 0) return failed;
        before = after;
    }
    return 0;
}

int run_stats(const Observed& observed, const Arguments& arguments) {
    if (arguments.stats.shard && *arguments.stats.shard >= observed.view.shard_count())
        return fail("there is no shard " + std::to_string(*arguments.stats.shard) +
                    "; the daemon has " + std::to_string(observed.view.shard_count()) + ".");
    if (arguments.watch_s > 0) return watch_stats(observed, arguments);
    const StatsSample sample = sample_stats(observed.view, observed.view.now_us);
    return print(show_stats(observed.view, sample, arguments.stats, arguments.form()));
}

int run_conns(const Observed& observed, const Arguments& arguments) {
    if (observed.view.tables.empty()) return fail(tables_missing(observed));
    ConnsOptions options = arguments.conns;
    options.digits = arguments.digits();
    const Result<std::string, std::string> text =
        show_conns(observed.view, options, arguments.form());
    if (!text) {
        std::fprintf(stderr, "chiructl: %s\n", text.error().c_str());
        return kUsage;
    }
    return print(*text);
}

int run_sockets(const Observed& observed, const Arguments& arguments) {
    if (observed.view.tables.empty()) return fail(tables_missing(observed));
    return print(show_sockets(observed.view, arguments.form()));
}

int run_neigh(const Observed& observed, const Arguments& arguments) {
    if (observed.view.tables.empty()) return fail(tables_missing(observed));
    return print(show_neighbors(observed.view, arguments.form()));
}

int run_paths(const Observed& observed, const Arguments& arguments) {
    if (observed.view.tables.empty()) return fail(tables_missing(observed));
    return print(show_paths(observed.view, arguments.form()));
}

using Command = std::function<int(const Observed&, const Arguments&)>;

int run(const Arguments& arguments, const Command& command) {
    const std::string path = shm::control_socket_path(arguments.socket);
    const Micros timeout(static_cast<std::int64_t>(arguments.timeout_s * 1e6));
    const Result<Observed, std::string> observed = observe(path, timeout);
    if (!observed) return fail(observed.error());
    if (!observed->daemon_answers)
        std::fprintf(stderr, "chiructl: chirud (pid %d) does not answer; this is read from its "
                             "memory.\n", observed->view.directory->daemon_pid);
    return command(*observed, arguments);
}

void describe_stats(CLI::App& stats, Arguments& arguments) {
    stats.add_option("filter", arguments.stats.filters,
                     "parts of counters' names, like tcp. or retransmits");
    stats.add_flag("-a,--all", arguments.stats.zeros, "counters that are zero, too");
    stats.add_flag("-p,--per-shard", arguments.stats.per_shard, "a column for each shard");
    stats.add_option("--shard", arguments.stats.shard, "this shard only");
    stats.add_option("-w,--watch", arguments.watch_s, "rates, every so many seconds (default 1)")
        ->expected(0, 1)
        ->default_str("1")
        ->check(CLI::Range(0.05, 86'400.0));
    stats.add_option("-n,--count", arguments.rounds, "with --watch: so many times, then end");
}

void describe_conns(CLI::App& conns, Arguments& arguments) {
    ConnsOptions& options = arguments.conns;
    conns.add_option("-s,--state", options.states, "only in these, like established,time-wait")
        ->delimiter(',');
    conns.add_flag("-l,--listen", options.listeners_only, "listeners only");
    conns.add_option("-p,--port", options.port, "only with this port, local or remote");
    conns.add_option("--pid", options.pid, "only of this process");
    conns.add_option("--shard", options.shard, "only of this shard");
    conns.add_option("--sort", options.sort, "the largest first")
        ->check(CLI::IsMember(conns_sort_keys()));
    conns.add_option("-n,--limit", options.limit, "at most so many connections");
    conns.add_flag("-e,--exact", arguments.exact, "every digit instead of 1.2M");
}

int parse_and_run(int argc, char** argv) {
    Arguments arguments;
    Command command;
    CLI::App app{"Shows what a running chirud does, by reading its memory."};
    app.set_version_flag("--version", std::string("chiructl " CHIRU_VERSION));
    app.require_subcommand(1);
    app.fallthrough();
    app.add_option("--socket", arguments.socket,
                   "the daemon's control socket (default: $CHIRU_SOCKET, else "
                   "/run/chiru/control.sock)");
    app.add_option("--timeout", arguments.timeout_s, "seconds to wait for the daemon (default 2)")
        ->check(CLI::Range(0.01, 3600.0));
    app.add_flag("--json", arguments.json, "JSON instead of text");

    const auto add = [&](const char* name, const char* help, Command run_it) {
        CLI::App* sub = app.add_subcommand(name, help);
        sub->callback([&command, run_it] { command = run_it; });
        return sub;
    };
    add("status", "is it well, and how much of everything is there",
        [](const Observed& o, const Arguments& a) { return print(show_status(o.view, a.form())); });
    CLI::App* topology = add("topology", "port, interface, shard, channel and client as a tree",
        [](const Observed& o, const Arguments& a) {
            const bool boxes = !a.ascii && terminal_draws_boxes();
            return print(show_topology(o.view, boxes ? Drawing::Boxes : Drawing::Ascii, a.form()));
        });
    topology->add_flag("--ascii", arguments.ascii, "draw without line-drawing characters");
    describe_stats(*add("stats", "counters, or their rates with --watch", run_stats), arguments);
    describe_conns(*add("conns", "connections and listeners", run_conns), arguments);
    add("sockets", "UDP sockets, their owners and counters", run_sockets);
    add("neigh", "neighbours: ARP and ND", run_neigh);
    add("routes", "where packets go", [](const Observed& o, const Arguments& a) {
        return print(show_routes(o.view, a.form()));
    });
    add("paths", "hosts that take smaller packets only", run_paths);
    add("ports", "devices, their offloads and counters", [](const Observed& o, const Arguments& a) {
        return print(show_ports(o.view, a.form()));
    });
    CLI::App* clients = add("clients", "attached processes and what they hold",
        [](const Observed& o, const Arguments& a) {
            ClientsOptions options = a.clients;
            options.digits = a.digits();
            return print(show_clients(o.view, options, a.form()));
        });
    clients->add_flag("-a,--all", arguments.clients.observers, "observers, too");
    clients->add_flag("-e,--exact", arguments.exact, "every digit instead of 1.2M");

    try {
        app.parse(argc, argv);
    } catch (const CLI::RequiredError& error) {
        const std::vector<std::string> rest = app.remaining();
        if (rest.empty()) std::fprintf(stderr, "%s", app.help().c_str());
        else std::fprintf(stderr, "chiructl: no such command: %s (see --help)\n", rest[0].c_str());
        return kUsage;
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : kUsage;
    }
    return run(arguments, command);
}

}  // namespace
}  // namespace chiru::cli

int main(int argc, char** argv) {
    signal(SIGPIPE, SIG_IGN);
    return chiru::cli::parse_and_run(argc, argv);
}
