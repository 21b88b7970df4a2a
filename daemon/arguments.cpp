// SPDX-License-Identifier: Apache-2.0
#include "daemon/arguments.hpp"

#include <CLI/CLI.hpp>

#include <map>

namespace chiru::daemon {

Result<Arguments, int> parse_arguments(int argc, const char* const* argv) {
    CLI::App app("chirud, a TCP dataplane: owns NICs, serves programs over shared memory");
    Arguments arguments;
    arguments.file = CHIRU_CONFIG_FOLDER "/chirud.yaml";
    std::string file_to_check;
    LogLevel level{};
    const std::map<std::string, LogLevel> levels{{"debug", LogLevel::Debug},
                                                 {"info", LogLevel::Info},
                                                 {"warning", LogLevel::Warning},
                                                 {"error", LogLevel::Error}};
    app.add_option("-c,--config", arguments.file, "the configuration, YAML")
        ->capture_default_str();
    const CLI::Option* check = app.add_option("--check-config", file_to_check,
                                              "print OK, or every mistake of this file, and end");
    app.add_option("-s,--socket", arguments.socket,
                   "control socket, instead of the configured one");
    const CLI::Option* level_option =
        app.add_option("--log-level", level, "debug, info, warning or error; else as configured")
            ->transform(CLI::CheckedTransformer(levels).description(""));
    bool foreground = true;  // as service managers want it; there is no other way
    app.add_flag("--foreground", foreground, "stay in the foreground: chirud always does");
    app.set_version_flag("-V,--version", "chirud " CHIRU_RELEASE);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return std::unexpected(app.exit(e) == kOk ? kOk : kMisused);
    }
    if (check->count() != 0) {
        arguments.check_only = true;
        arguments.file = file_to_check;
    }
    if (level_option->count() != 0) arguments.level = level;
    return arguments;
}

}  // namespace chiru::daemon
