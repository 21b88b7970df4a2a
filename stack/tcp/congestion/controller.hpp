// SPDX-License-Identifier: Apache-2.0
//
// What loss recovery tells congestion control, and what it asks.
//
// A controller sees two reports and turns one window. It cannot reach the connection, so each
// algorithm can be read, and tested, on its own. Its state is plain data in the connection block.
#pragma once

#include "base/time.hpp"
#include "stack/tcp/congestion/cubic.hpp"
#include "stack/tcp/congestion/dctcp.hpp"
#include "stack/tcp/congestion/reno.hpp"
#include "stack/tcp/congestion/report.hpp"

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <variant>

namespace chiru::tcp {

template <class T>
concept CongestionController =
    std::is_trivially_copyable_v<T> &&
    requires(T cc, CongestionWindow window, AckReport ack, LossReport loss) {
        cc.on_ack(window, ack);
        cc.on_loss(window, loss);
    };
static_assert(CongestionController<Cubic> && CongestionController<Reno> &&
              CongestionController<Dctcp>);

using CongestionState = std::variant<Cubic, Reno, Dctcp>;
static_assert(std::is_trivially_copyable_v<CongestionState>);

}  // namespace chiru::tcp
