// SPDX-License-Identifier: Apache-2.0
//
// Configuration files, however broken: each is taken, or refused with at least one message. What
// was taken, and the input itself, then goes through the reading of device strings.
#include "daemon/config/config.hpp"
#include "daemon/config/values.hpp"
#include "daemon/nic/device_string.hpp"
#include "test/fuzz/input.hpp"

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

using namespace chiru;
using fuzz::must;

namespace {

// What is completed is the same device, with all that the operator said of it.
void complete(const std::string& device) {
    const std::string whole = daemon::nic::complete_device(device, 2, 9000);
    must(whole.starts_with(device), "what the operator wrote was changed");
    must(daemon::nic::device_name(whole) == daemon::nic::device_name(device), "another device");
    must(daemon::nic::complete_device(whole, 2, 9000) == whole, "completed twice");
    for (const char* key : {"iface", "qpairs", "framesz", "role"})
        if (const auto value = daemon::nic::device_argument(device, key))
            must(daemon::nic::device_argument(whole, key) == value, "an argument got lost");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                              ("chiru-fuzz-" + std::to_string(getpid()) + ".yaml");
    const std::string text(reinterpret_cast<const char*>(data), size);
    std::ofstream(file, std::ios::binary) << text;
    const daemon::Machine machine{.cores = {0, 1, 2, 3}, .has_group = [](const auto&) {
                                      return true;
                                  }};
    const auto config = daemon::load_config(file, machine);
    must(config || !config.error().empty(), "refused without a word");
    if (config)
        for (const auto& port : config->ports) complete(port.device);
    if (const auto device = daemon::parse_device(text)) complete(*device);
    std::filesystem::remove(file);
    return 0;
}
