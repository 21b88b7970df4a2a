// SPDX-License-Identifier: Apache-2.0
//
// Runs seeds of the simulator, one after the other or for hours, and says how to see one again.
//
//   sim_seeds [--first N] [--count N] [--hours H] [--trace]
//
// Status 0 if all properties held for all of them.
#include "test/sim/scenario.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Options {
    std::uint64_t first = 1;
    std::uint64_t count = 1000;
    double hours = 0;  ///< if set, it counts instead of `count`
    bool trace = false;
};

bool read_options(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
        if (std::strcmp(argv[i], "--trace") == 0) {
            options.trace = true;
            continue;
        }
        if (value == nullptr) return false;
        if (std::strcmp(argv[i], "--first") == 0) options.first = std::strtoull(value, nullptr, 0);
        else if (std::strcmp(argv[i], "--count") == 0)
            options.count = std::strtoull(value, nullptr, 0);
        else if (std::strcmp(argv[i], "--hours") == 0) options.hours = std::strtod(value, nullptr);
        else return false;
        ++i;
    }
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (!read_options(argc, argv, options)) {
        std::fprintf(stderr, "usage: %s [--first N] [--count N] [--hours H] [--trace]\n", argv[0]);
        return 2;
    }
    // The only clock here decides when to stop; no run sees it.
    const auto begun = std::chrono::steady_clock::now();
    const auto over = [&](std::uint64_t done) {
        const std::chrono::duration<double, std::ratio<3600>> passed =
            std::chrono::steady_clock::now() - begun;
        return options.hours > 0 ? passed.count() >= options.hours : done == options.count;
    };
    std::uint64_t done = 0, failed = 0, frames = 0, lost = 0, timeouts = 0;
    double virtual_hours = 0;
    for (; !over(done); ++done) {
        const std::uint64_t seed = options.first + done;
        const chiru::sim::Outcome outcome = chiru::sim::run_scenario(seed, options.trace);
        frames += outcome.frames;
        lost += outcome.lost;
        timeouts += outcome.timeouts;
        virtual_hours += static_cast<double>(outcome.virtual_us) / 3.6e9;
        if (outcome.fault.empty()) continue;
        ++failed;
        std::printf("seed %llu: %s\n  %s\n  again: %s --first %llu --count 1 --trace\n",
                    static_cast<unsigned long long>(seed), outcome.fault.c_str(),
                    outcome.description.c_str(), argv[0], static_cast<unsigned long long>(seed));
        std::fflush(stdout);
    }
    std::printf("%llu seeds, %llu failed; %llu frames, %llu lost, %llu time-outs, %.1f virtual "
                "hours\n",
                static_cast<unsigned long long>(done), static_cast<unsigned long long>(failed),
                static_cast<unsigned long long>(frames), static_cast<unsigned long long>(lost),
                static_cast<unsigned long long>(timeouts), virtual_hours);
    return failed == 0 ? 0 : 1;
}
