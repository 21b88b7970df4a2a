// SPDX-License-Identifier: Apache-2.0
#include "stack/session.hpp"

namespace chiru {

const char* to_string(Violation violation) {
    switch (violation) {
        case Violation::None: return "none";
        case Violation::UnknownOperation: return "unknown operation";
        case Violation::BadCount: return "count out of range";
        case Violation::SliceOutsideArena: return "slice outside its arena";
        case Violation::NotItsConnection: return "a connection of another session";
        case Violation::NotItsSlot: return "a receive slot it does not hold";
        case Violation::NotItsListener: return "a listener it does not share";
        case Violation::BadOption: return "option or value unknown";
    }
    return "?";
}

}  // namespace chiru
