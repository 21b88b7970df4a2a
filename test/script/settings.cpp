// SPDX-License-Identifier: Apache-2.0
#include "test/script/settings.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace chiru::script {

namespace {

constexpr auto kTimes = std::to_array<std::pair<std::string_view, Micros TcpConfig::*>>({
    {"min_rto", &TcpConfig::min_rto},
    {"max_rto", &TcpConfig::max_rto},
    {"initial_rto", &TcpConfig::initial_rto},
    {"delayed_ack", &TcpConfig::delayed_ack},
    {"time_wait", &TcpConfig::time_wait},
    {"fin_wait2", &TcpConfig::fin_wait2},
    {"keep_idle", &TcpConfig::keep_idle},
    {"keep_interval", &TcpConfig::keep_interval},
});

constexpr auto kNumbers =
    std::to_array<std::pair<std::string_view, std::uint32_t TcpConfig::*>>({
        {"keep_count", &TcpConfig::keep_count},
        {"syn_retries", &TcpConfig::syn_retries},
        {"retries", &TcpConfig::retries},
        {"receive_buffer", &TcpConfig::receive_buffer_bytes},
    });

constexpr auto kOptions = std::to_array<std::pair<std::string_view, shm::ConnectionOption>>({
    {"nodelay", shm::ConnectionOption::NoDelay},
    {"cork", shm::ConnectionOption::Cork},
    {"keepalive", shm::ConnectionOption::KeepAlive},
    {"keep_idle", shm::ConnectionOption::KeepIdle},
    {"keep_interval", shm::ConnectionOption::KeepInterval},
    {"keep_count", shm::ConnectionOption::KeepCount},
    {"user_timeout", shm::ConnectionOption::UserTimeout},
    {"quickack", shm::ConnectionOption::QuickAck},
    {"receive_buffer", shm::ConnectionOption::ReceiveBuffer},
    {"linger_zero", shm::ConnectionOption::LingerZero},
    {"congestion", shm::ConnectionOption::CongestionControl},
    {"max_pacing_rate", shm::ConnectionOption::MaxPacingRate},
    {"max_segment", shm::ConnectionOption::MaxSegment},
    {"tos", shm::ConnectionOption::TypeOfService},
    {"ttl", shm::ConnectionOption::TimeToLive},
});

}  // namespace

TcpConfig laboratory() {
    TcpConfig config;
    config.min_rto = std::chrono::milliseconds(200);
    config.delayed_ack = std::chrono::milliseconds(40);
    return config;
}

void apply(const Setting& setting, TcpConfig& config) {
    for (const auto& [name, member] : kTimes) {
        if (name != setting.name) continue;
        const auto value = parse_duration(setting.value);
        if (!value) throw std::runtime_error("'" + setting.value + "' is not a time");
        config.*member = *value;
        return;
    }
    for (const auto& [name, member] : kNumbers) {
        if (name != setting.name) continue;
        config.*member = static_cast<std::uint32_t>(std::stoul(setting.value));
        return;
    }
    const auto* algorithm = std::ranges::find(shm::kCongestionNames, setting.value);
    if (setting.name == "congestion" && algorithm != shm::kCongestionNames.end())
        config.congestion = static_cast<shm::CongestionAlgorithm>(
            algorithm - shm::kCongestionNames.begin());
    else if (setting.name == "pacing" && setting.value == "on")
        config.pacing = PacingPolicy::On;
    else throw std::runtime_error("'" + setting.name + " " + setting.value + "' cannot be set");
}

shm::ConnectionOption connection_option(const std::string& name) {
    for (const auto& [known, option] : kOptions)
        if (known == name) return option;
    throw std::runtime_error("'" + name + "' is no option of a socket");
}

}  // namespace chiru::script
