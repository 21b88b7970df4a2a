// SPDX-License-Identifier: Apache-2.0
//
// One run of the simulator, all of it drawn from a seed: hosts, links, what happens to the links
// and what the programs do; and the properties that must hold whatever was drawn:
//
//   - delivered bytes are the bytes sent, in order, once; each end is seen, and seen once
//   - no connection fails that need not, and none outlives its time-outs
//   - windows, quotas and lent memory are respected on either side
//   - afterwards nothing is held anywhere: no block, slot, record or charge
#pragma once

#include <cstdint>
#include <string>

namespace chiru::sim {

struct Outcome {
    std::string fault;        ///< empty: all properties held
    std::string description;  ///< what was drawn, and the blocks that were left
    std::uint64_t frames = 0;
    std::uint64_t lost = 0;
    std::uint64_t timeouts = 0;
    std::int64_t virtual_us = 0;
};

Outcome run_scenario(std::uint64_t seed, bool trace);

}  // namespace chiru::sim
