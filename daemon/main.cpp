// SPDX-License-Identifier: Apache-2.0
//
// chirud: arguments, configuration, start, serve until told to stop, stop. Ends with 0, with 2 when
// the arguments or the configuration are wrong, and with 1 when the machine stands in the way.
#include "daemon/config/config.hpp"
#include "daemon/control/control_socket.hpp"
#include "daemon/control/directory_page.hpp"
#include "daemon/control/plane_config.hpp"
#include "daemon/control/process.hpp"
#include "daemon/control/server.hpp"
#include "daemon/dataplane/plane.hpp"
#include "daemon/telemetry/log.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <vector>

namespace {

using namespace chiru;
using namespace chiru::daemon;

constexpr int kOk = 0;
constexpr int kFailed = 1;
constexpr int kMisused = 2;

int fail(const std::string& what) {
    log_error(what);
    return kFailed;
}

int serve(const Config& config) {
    // Before any thread is started: each inherits the mask, and so only the signalfd gets them.
    const shm::UniqueFd signals = take_over_signals();
    const Logging logging(config.log_level);
    raise_descriptor_limit();

    // Declared so that whatever is used by something else outlives it.
    Result<ControlSocket, std::string> socket =
        ControlSocket::open(config.control.socket, socket_access(config.control));
    if (!socket) return fail(socket.error());
    Result<DirectoryPage, int> page = DirectoryPage::make(config, CHIRU_RELEASE);
    if (!page) return fail("no memory for the directory");
    DataPlane plane;
    Server server(config, plane, *page, *socket, signals.get());

    log_info("chirud " CHIRU_RELEASE " with " + config.file);
    const Result<void, std::string> started =
        plane.start(plane_config(config, random_key()), page->directory());
    if (!started) return fail(started.error());
    page->open(plane.shard_count(), plane.rx_arena().bytes().size(), plane.rx_slot_bytes());
    const Result<void, std::string> served = server.run();
    plane.stop();
    if (!served) return fail(served.error());
    log_info("stopped");
    return kOk;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("chirud, a TCP dataplane: owns NICs, serves programs over shared memory");
    std::string file = CHIRU_CONFIG_FOLDER "/chirud.yaml";
    std::string file_to_check;
    std::string socket;
    LogLevel level = LogLevel::Info;
    bool foreground = true;
    app.add_option("-c,--config", file, "the configuration, YAML")->capture_default_str();
    app.add_option("--check-config", file_to_check, "check this configuration and end");
    app.add_option("-s,--socket", socket, "control socket, instead of the configured one");
    const std::map<std::string, LogLevel> levels{{"debug", LogLevel::Debug},
                                                 {"info", LogLevel::Info},
                                                 {"warning", LogLevel::Warning},
                                                 {"error", LogLevel::Error}};
    const CLI::Option* level_option =
        app.add_option("--log-level", level, "debug, info, warning or error")
            ->transform(CLI::CheckedTransformer(levels).description(""));
    app.add_flag("--foreground", foreground, "stay in the foreground (always so)");
    app.set_version_flag("-V,--version", "chirud " CHIRU_RELEASE);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == kOk ? kOk : kMisused;
    }

    Result<Config, std::vector<std::string>> config =
        load_config(file_to_check.empty() ? file : file_to_check);
    if (!config) {
        for (const std::string& mistake : config.error())
            std::fprintf(stderr, "%s\n", mistake.c_str());
        return kMisused;
    }
    if (!file_to_check.empty()) return std::puts("OK"), kOk;
    if (!socket.empty()) config->control.socket = socket;
    if (level_option->count() != 0) config->log_level = level;
    try {
        return serve(*config);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "chirud: %s\n", e.what());
        return kFailed;
    }
}
