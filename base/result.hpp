// SPDX-License-Identifier: Apache-2.0
//
// A value, or the reason there is none: std::expected under the name that our pages use.
#pragma once

#include <expected>

namespace chiru {

template <class T, class E>
using Result = std::expected<T, E>;

}  // namespace chiru
