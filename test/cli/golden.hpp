// SPDX-License-Identifier: Apache-2.0
//
// Output compared with a file of test/cli/golden. CHIRU_UPDATE_GOLDEN=1 writes the files anew; the
// difference is then read in review.
#pragma once

#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace chiru::cli::test {

inline void check_golden(const std::string& name, const std::string& text) {
    const std::string path = std::string(CHIRU_SOURCE_ROOT) + "/test/cli/golden/" + name;
    if (std::getenv("CHIRU_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << text;
    std::ifstream file(path);
    std::ostringstream golden;
    golden << file.rdbuf();
    INFO(name);
    CHECK(text == golden.str());
}

}  // namespace chiru::cli::test
