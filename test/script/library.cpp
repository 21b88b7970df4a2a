// SPDX-License-Identifier: Apache-2.0
#include "test/script/library.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace chiru::script {

namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_of(const std::vector<std::string>& places) {
    std::vector<fs::path> files;
    for (const std::string& place : places) {
        if (!fs::is_directory(place)) {
            files.emplace_back(place);
            continue;
        }
        for (const auto& entry : fs::recursive_directory_iterator(place))
            if (entry.path().extension() == ".tcp") files.push_back(entry.path());
    }
    std::ranges::sort(files);
    return files;
}

}  // namespace

Library read_library(const std::vector<std::string>& places) {
    Library library;
    for (const fs::path& file : files_of(places)) {
        const std::string name =
            file.parent_path().filename().string() + "/" + file.stem().string();
        std::ifstream stream(file);
        std::ostringstream text;
        text << stream.rdbuf();
        if (!stream) {
            library.mistakes.push_back(name + ": cannot be read");
            continue;
        }
        auto script = parse_script(name, text.str());
        if (script) library.scripts.push_back(std::move(*script));
        else library.mistakes.push_back(name + ": " + script.error());
    }
    return library;
}

}  // namespace chiru::script
