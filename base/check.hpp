// SPDX-License-Identifier: Apache-2.0
//
// For our own mistakes only: an invariant of this program that does not hold. What a peer or a
// client sends is never checked with these, and the client library never uses CHECK, because it
// must not end its host program.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace chiru {

[[noreturn]] inline void check_failed(const char* expression, const char* file, int line) {
    std::fprintf(stderr, "%s:%d: invariant does not hold: %s\n", file, line, expression);
    std::abort();
}

}  // namespace chiru

/// Always on; keep it off the path of a packet.
#define CHECK(expression) \
    ((expression) ? void() : ::chiru::check_failed(#expression, __FILE__, __LINE__))

/// In debug and sanitizer builds only.
#ifdef NDEBUG
#define DCHECK(expression) static_cast<void>(sizeof(!(expression)))
#else
#define DCHECK(expression) CHECK(expression)
#endif
