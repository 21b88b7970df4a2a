// SPDX-License-Identifier: Apache-2.0
//
// Watches the ports' links for the control thread. When a link comes up, every stack is told: what
// it knew of the neighbours may be wrong by now. A memif whose server went has to be started anew
// by us, which no shard may notice:
//
//   Serving --link down--> Leaving --every shard let go of it--> Away --a server answers--> Serving
#pragma once

#include "daemon/dataplane/command.hpp"
#include "daemon/nic/log.hpp"
#include "daemon/nic/port.hpp"
#include "daemon/nic/rx_arena.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace chiru::daemon {

class PortWatch {
public:
    using Ports = std::vector<std::unique_ptr<nic::Port>>;

    /// `post` gives a command to each of the `shards`. All must outlive the watch.
    PortWatch(const Ports& ports, const nic::RxArena& arena, const nic::LogSink& log,
              std::uint32_t shards, std::function<void(const Command&)> post);

    /// Once a second.
    void look();

    /// Is a report with this tag the answer to a command of ours? Goes on with what waited for it.
    bool takes(std::uint64_t tag);

private:
    enum class State : std::uint8_t { Serving, Leaving, Away };
    struct Watched {
        State state = State::Serving;
        bool link_was_up = false;
        std::uint32_t shards_to_leave = 0;
        std::string trouble{};  ///< why its restart failed, as it was told
    };

    void look_at_link(PortIndex index);
    void come_back(PortIndex index);
    void say(PortIndex index, const std::string& text) const;

    const Ports& ports_;
    const nic::RxArena& arena_;
    const nic::LogSink& log_;
    std::uint32_t shards_;
    std::function<void(const Command&)> post_;
    std::vector<Watched> watched_;
};

}  // namespace chiru::daemon
