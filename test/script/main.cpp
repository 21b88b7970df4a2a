// SPDX-License-Identifier: Apache-2.0
//
// Plays packet scripts against the engine.
//
//     script-engine [--family 4|6] [--vlan ID] FOLDER-OR-FILE...
#include "test/script/engine.hpp"
#include "test/script/library.hpp"

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

using namespace chiru::script;

namespace {

std::optional<std::string> play(const Script& script, const Wire& wire) {
    try {
        return play_on_engine(script, wire);
    } catch (const std::exception& error) {
        return error.what();
    }
}

}  // namespace

int main(int argc, char** argv) {
    Wire wire;
    std::vector<std::string> places;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--family" && i + 1 < argc) wire.family = static_cast<unsigned>(
            std::stoul(argv[++i]));
        else if (word == "--vlan" && i + 1 < argc) wire.vlan = static_cast<std::uint16_t>(
            std::stoul(argv[++i]));
        else places.push_back(word);
    }
    const Library library = read_library(places);
    for (const std::string& mistake : library.mistakes) std::printf("%s\n", mistake.c_str());
    std::size_t failed = library.mistakes.size();
    std::size_t played = 0;
    for (const Script& script : library.scripts) {
        if (script.family != 0 && script.family != wire.family) continue;
        ++played;
        const auto wrong = play(script, wire);
        if (!wrong) continue;
        ++failed;
        std::printf("%s: %s\n", script.name.c_str(), wrong->c_str());
    }
    std::printf("%zu scripts, %zu failed\n", played, failed);
    return failed == 0 && played > 0 ? 0 : 1;
}
