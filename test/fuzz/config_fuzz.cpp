// SPDX-License-Identifier: Apache-2.0
//
// Configuration files, however broken: each is taken, or refused with at least one message.
#include "daemon/config/config.hpp"

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                              ("chiru-fuzz-" + std::to_string(getpid()) + ".yaml");
    {
        std::ofstream out(file, std::ios::binary);
        out.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    }
    const auto config = chiru::daemon::load_config(file);
    if (!config && config.error().empty()) std::abort();
    std::filesystem::remove(file);
    return 0;
}
