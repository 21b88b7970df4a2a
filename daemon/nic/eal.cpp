// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/eal.hpp"

#include "daemon/nic/tap_signals.hpp"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_memory.h>

#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>

namespace chiru::daemon::nic {
namespace {

namespace fs = std::filesystem;

/// The sink outlives DPDK's use of it: the stream is process-wide, as DPDK's log is.
LogSink& sink() {
    static LogSink instance;
    return instance;
}

LogLevel level_of_current_message() {
    const auto level = rte_log_cur_msg_loglevel();
    if (level <= static_cast<int>(RTE_LOG_ERR)) return LogLevel::Error;
    if (level <= static_cast<int>(RTE_LOG_WARNING)) return LogLevel::Warning;
    return LogLevel::Debug;
}

ssize_t write_line(void*, const char* text, std::size_t bytes) {
    std::string_view line(text, bytes);
    while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.remove_suffix(1);
    if (!line.empty() && sink()) sink()(level_of_current_message(), line);
    return static_cast<ssize_t>(bytes);
}

void route_log() {
    cookie_io_functions_t functions{};
    functions.write = write_line;
    FILE* stream = fopencookie(nullptr, "w", functions);
    if (stream == nullptr) return;
    setvbuf(stream, nullptr, _IOLBF, 1024);
    rte_openlog_stream(stream);
}

/// DPDK pins the thread that starts it; a CPU it may run on, so that this works under taskset.
int allowed_cpu(const cpu_set_t& allowed) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) return cpu;
    return 0;
}

std::vector<std::string> arguments(const EalSetup& setup, int cpu) {
    std::vector<std::string> list{"chirud", "--no-telemetry", "--iova-mode=va", "--log-level=5",
                                  "--file-prefix=chiru-" + std::to_string(getpid()),
                                  "--lcores=0@" + std::to_string(cpu)};
    if (setup.hugepages) {
        list.push_back("--in-memory");
    } else {  // DPDK allows it with hugepages only; these two amount to it
        list.push_back("--no-shconf");
        list.push_back("--no-huge");
        list.push_back("-m");
        list.push_back(std::to_string((setup.memory_bytes >> 20) + 1));
    }
    if (setup.pci_devices.empty()) list.push_back("--no-pci");
    for (const std::string& device : setup.pci_devices) {
        list.push_back("-a");
        list.push_back(device);
    }
    return list;
}

/// DPDK makes one even when nothing will ever be put there.
void remove_runtime_directory() {
    const fs::path directory = rte_eal_get_runtime_dir();
    std::error_code not_empty;  // somebody else's files: not ours to remove
    fs::remove(directory, not_empty);
    fs::remove(directory.parent_path(), not_empty);
}

}  // namespace

Result<void, std::string> start_eal(const EalSetup& setup) {
    sink() = setup.log;
    route_log();

    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    sched_getaffinity(0, sizeof allowed, &allowed);
    std::vector<std::string> list = arguments(setup, allowed_cpu(allowed));
    std::vector<char*> argv;
    for (std::string& argument : list) argv.push_back(argument.data());

    const TapSignalsBlocked guard;  // so that DPDK's own threads never take one
    const int parsed = rte_eal_init(static_cast<int>(argv.size()), argv.data());
    sched_setaffinity(0, sizeof allowed, &allowed);
    remove_runtime_directory();
    if (parsed >= 0) return {};
    return std::unexpected("DPDK does not start: " + std::string(rte_strerror(rte_errno)) +
                           (setup.hugepages ? "; with hugepages: off it needs none" : "") +
                           "; the log has its own words");
}

void stop_eal() { rte_eal_cleanup(); }

std::size_t free_hugepage_bytes() {
    std::ifstream file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    std::size_t pages = 0;
    return file >> pages ? pages << 21 : 0;
}

bool is_pci_device(const std::string& device) {
    static const std::regex pattern(
        "([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\\.[0-7](,.*)?");
    return std::regex_match(device, pattern);
}

Result<void, int> register_memory(std::span<std::byte> memory) {
    constexpr std::size_t kPage = 4096;
    const auto pages = static_cast<unsigned>(memory.size() / kPage);
    if (rte_extmem_register(memory.data(), memory.size(), nullptr, pages, kPage) == 0) return {};
    return std::unexpected(rte_errno);
}

void unregister_memory(std::span<std::byte> memory) {
    rte_extmem_unregister(memory.data(), memory.size());
}

bool register_thread() { return rte_thread_register() == 0; }
void unregister_thread() { rte_thread_unregister(); }

}  // namespace chiru::daemon::nic
