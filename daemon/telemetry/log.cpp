// SPDX-License-Identifier: Apache-2.0
#include "daemon/telemetry/log.hpp"

#include "base/time.hpp"
#include "daemon/telemetry/rate_limit.hpp"

#include <spdlog/async.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>

namespace chiru::daemon {
namespace {

constexpr std::size_t kQueuedLines = 8192;
constexpr std::uint32_t kClientBurst = 50;             // lines
constexpr Micros kClientInterval = std::chrono::milliseconds(100);

std::shared_ptr<spdlog::logger> logger;  // of the one Logging there is

/// systemd tells in JOURNAL_STREAM which file its journal reads; is that our stderr?
bool stderr_is_journal() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat status {};
    if (stream == nullptr || fstat(STDERR_FILENO, &status) != 0) return false;
    return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) == stream;
}

/// "<6>", the priority of syslog(3).
class PriorityFlag : public spdlog::custom_flag_formatter {
public:
    void format(const spdlog::details::log_msg& message, const std::tm&,
                spdlog::memory_buf_t& out) override {
        const std::string_view priority = message.level >= spdlog::level::err    ? "<3>"
                                          : message.level == spdlog::level::warn ? "<4>"
                                          : message.level == spdlog::level::info ? "<6>"
                                                                                 : "<7>";
        out.append(priority.data(), priority.data() + priority.size());
    }
    std::unique_ptr<custom_flag_formatter> clone() const override {
        return std::make_unique<PriorityFlag>();
    }
};

spdlog::level::level_enum to_spdlog(LogLevel level) {
    switch (level) {
        case LogLevel::Debug: return spdlog::level::debug;
        case LogLevel::Info: return spdlog::level::info;
        case LogLevel::Warning: return spdlog::level::warn;
        case LogLevel::Error: break;
    }
    return spdlog::level::err;
}

}  // namespace

Logging::Logging(LogLevel level) {
    spdlog::init_thread_pool(kQueuedLines, 1);
    logger = spdlog::create_async_nb<spdlog::sinks::stderr_sink_mt>("chirud");
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<PriorityFlag>('*');
    formatter->set_pattern(stderr_is_journal() ? "%*%v" : "%Y-%m-%d %H:%M:%S.%e %l: %v");
    logger->set_formatter(std::move(formatter));
    logger->set_level(to_spdlog(level));
    logger->flush_on(spdlog::level::info);
}

Logging::~Logging() {
    logger.reset();
    spdlog::shutdown();
}

void log(LogLevel level, std::string_view text) {
    const std::shared_ptr<spdlog::logger> to = logger;
    if (!to || !to->should_log(to_spdlog(level))) return;
    std::string line(text);
    for (char& c : line)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    to->log(to_spdlog(level), spdlog::string_view_t(line));
}

void log_client(LogLevel level, std::string_view text) {
    static RateLimit limit(kClientBurst, kClientInterval);
    const Instant now(std::chrono::duration_cast<Micros>(
        std::chrono::steady_clock::now().time_since_epoch()));
    if (!limit.allow(now)) return;
    if (const std::uint64_t count = limit.take_left_out(); count != 0)
        log(LogLevel::Warning, std::to_string(count) + " messages about clients were left out");
    log(level, text);
}

}  // namespace chiru::daemon
