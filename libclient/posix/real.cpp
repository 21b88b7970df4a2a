// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/real.hpp"

#include <dlfcn.h>

namespace chiru::posix {

Real real_functions;
std::atomic<bool> real_ready{false};

/// Several threads may do this at once: all store the same values.
void find_real_functions() {
    // In a program that is not preloaded (the unit tests), "next" is the C library as well.
#define REAL(name) \
    real_functions.name = reinterpret_cast<decltype(&::name)>(::dlsym(RTLD_NEXT, #name));
#include "libclient/posix/real.def"
#undef REAL
    real_ready.store(true, std::memory_order_release);
}

}  // namespace chiru::posix
