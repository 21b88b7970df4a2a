// SPDX-License-Identifier: Apache-2.0
//
// The scripts of a folder.
#pragma once

#include "test/script/notation.hpp"

#include <string>
#include <vector>

namespace chiru::script {

struct Library {
    std::vector<Script> scripts;        ///< by name
    std::vector<std::string> mistakes;  ///< "5961/reset.tcp: line 3: what is wrong"
};

/// Reads files, and all *.tcp of folders. A script's name is its folder and file: "5961/reset".
Library read_library(const std::vector<std::string>& places);

}  // namespace chiru::script
