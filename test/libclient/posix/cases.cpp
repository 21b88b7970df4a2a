// SPDX-License-Identifier: Apache-2.0
//
// What programs rely on, call by call, with results and errno values printed. It knows nothing of
// chiru: run on the kernel and under the shim it must print the same (see the `differential` test).
//
//   cases ADDRESS [CASE]...     talks to itself over ADDRESS, IPv4 or IPv6
#include "cases.hpp"

#include <cstdio>
#include <cstring>
#include <vector>

using namespace cases;

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fputs("usage: cases ADDRESS [CASE]...\n", stderr);
        return 2;
    }
    address_text = argv[1];
    family = address_text.find(':') == std::string::npos ? AF_INET : AF_INET6;
    for (const auto* group : {&kSocketsCases, &kOptionsCases, &kDataCases, &kReadinessCases,
                              &kProcessesCases}) {
        for (const Case& each : *group) {
            bool asked = argc == 2;
            for (int i = 2; i < argc; ++i) asked |= std::strcmp(argv[i], each.name) == 0;
            if (!asked) continue;
            print("%s\n", each.name);
            each.run();
        }
    }
}
