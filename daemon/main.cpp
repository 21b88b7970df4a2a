// SPDX-License-Identifier: Apache-2.0
//
// chirud: arguments, configuration, start, serve until told to stop, stop.
#include "daemon/arguments.hpp"
#include "daemon/config/config.hpp"
#include "daemon/control/control_socket.hpp"
#include "daemon/control/directory_page.hpp"
#include "daemon/control/plane_config.hpp"
#include "daemon/control/process.hpp"
#include "daemon/control/server.hpp"
#include "daemon/dataplane/plane.hpp"
#include "daemon/telemetry/log.hpp"

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace {

using namespace chiru;
using namespace chiru::daemon;

int fail(const std::string& what) {
    log_error(what);
    return kFailed;
}

int serve(const Config& config) {
    // Before any thread is started: each inherits the mask, and so only the signalfd gets them.
    const shm::UniqueFd signals = take_over_signals();
    const Logging logging(config.log_level);
    raise_descriptor_limit();

    // In an order in which whatever is used by something else outlives it.
    Result<ControlSocket, std::string> socket =
        ControlSocket::open(config.control.socket, socket_access(config.control));
    if (!socket) return fail(socket.error());
    Result<DirectoryPage, int> page = DirectoryPage::make(config, CHIRU_RELEASE);
    if (!page) return fail("there is no memory for the directory");
    DataPlane plane;
    Server server(config, plane, *page, *socket, signals.get());

    log_info("chirud " CHIRU_RELEASE " starts with " + config.file);
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
    const Result<Arguments, int> arguments = parse_arguments(argc, argv);
    if (!arguments) return arguments.error();
    Result<Config, std::vector<std::string>> config = load_config(arguments->file);
    if (!config) {
        for (const std::string& mistake : config.error())
            std::fprintf(stderr, "%s\n", mistake.c_str());
        return kMisused;
    }
    if (arguments->check_only) return std::puts("OK"), kOk;
    if (!arguments->socket.empty()) config->control.socket = arguments->socket;
    if (arguments->level) config->log_level = *arguments->level;
    try {
        return serve(*config);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "chirud: %s\n", e.what());
        return kFailed;
    }
}
