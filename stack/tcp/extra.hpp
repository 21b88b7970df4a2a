// SPDX-License-Identifier: Apache-2.0
//
// What a connection needs only while it does something out of the ordinary, beyond its block: the
// state of a congestion control that measures much, of a search for the path's MTU, of a window
// that is growing. Records are taken when the first of these begins, and a connection that rests,
// or never does any of them, has none. There are as many as connections, but memory is committed
// only for those in use.
#pragma once

#include "stack/tcp/index.hpp"

#include <type_traits>

namespace chiru::tcp {

struct Extra {
    Index next_free = kNil;
};
static_assert(std::is_trivially_copyable_v<Extra>);

using ExtraPool = Pool<Extra, &Extra::next_free>;

}  // namespace chiru::tcp
