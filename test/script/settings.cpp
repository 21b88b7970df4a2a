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

constexpr auto kControllers =
    std::to_array<std::pair<std::string_view, shm::CongestionAlgorithm>>({
        {"reno", shm::CongestionAlgorithm::Reno},
        {"cubic", shm::CongestionAlgorithm::Cubic},
        {"dctcp", shm::CongestionAlgorithm::Dctcp},
        {"bbr", shm::CongestionAlgorithm::Bbr},
    });
constexpr auto kPacingPolicies = std::to_array<std::pair<std::string_view, PacingPolicy>>({
    {"auto", PacingPolicy::Auto},
    {"on", PacingPolicy::On},
});

constexpr auto kEcnPolicies = std::to_array<std::pair<std::string_view, EcnPolicy>>({
    {"off", EcnPolicy::Off},
    {"passive", EcnPolicy::Passive},
    {"on", EcnPolicy::On},
});

constexpr auto kProbing = std::to_array<std::pair<std::string_view, MtuProbing>>({
    {"off", MtuProbing::Off},
    {"black_hole", MtuProbing::BlackHole},
    {"always", MtuProbing::Always},
});

constexpr auto kSwitch =
    std::to_array<std::pair<std::string_view, bool>>({{"off", false}, {"on", true}});

constexpr auto kFastOpen = std::to_array<std::pair<std::string_view, FastOpenPolicy>>(
    {{"off", FastOpenPolicy::Off}, {"both", FastOpenPolicy::Both}});

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
    {"fast_open", shm::ConnectionOption::FastOpen},
    {"fast_open_connect", shm::ConnectionOption::FastOpen},
});

/// The value of that name, into `to`.
template <class Words, class Value>
bool choose(const Words& words, const std::string& name, Value& to) {
    for (const auto& [known, value] : words) {
        if (known != name) continue;
        to = value;
        return true;
    }
    return false;
}

}  // namespace

TcpConfig laboratory() {
    TcpConfig config;
    config.min_rto = std::chrono::milliseconds(200);
    config.delayed_ack = std::chrono::milliseconds(40);
    config.mtu_probing = MtuProbing::Off;
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
    const auto& [name, value] = setting;
    const bool known = (name == "congestion" && choose(kControllers, value, config.congestion)) ||
                       (name == "mtu_probing" && choose(kProbing, value, config.mtu_probing)) ||
                       (name == "ecn" && choose(kEcnPolicies, value, config.ecn)) ||
                       (name == "pacing" && choose(kPacingPolicies, value, config.pacing)) ||
                       (name == "syn_cookies" && choose(kSwitch, value, config.syn_cookies)) ||
                       (name == "fast_open" && choose(kFastOpen, value, config.fast_open));
    if (!known) throw std::runtime_error("'" + name + " " + value + "' cannot be set");
}

shm::ConnectionOption connection_option(const std::string& name) {
    for (const auto& [known, option] : kOptions)
        if (known == name) return option;
    throw std::runtime_error("'" + name + "' is no option of a socket");
}

}  // namespace chiru::script
