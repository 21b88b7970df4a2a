// SPDX-License-Identifier: Apache-2.0
//
// Names that scripts use for what can be set: on a socket, and (engine only) in the configuration.
#pragma once

#include "shm/descriptor.hpp"
#include "stack/config.hpp"
#include "test/script/notation.hpp"

#include <string>

namespace chiru::script {

/// What every target is set to, so that one script fits all: where chiru's defaults suit data
/// centres, scripts go by what is customary (RTO floor 200 ms, delayed ACK 40 ms, no
/// probing for path MTUs).
TcpConfig laboratory();

/// A `set` line. Throws std::runtime_error for an unknown name or a bad value.
void apply(const Setting& setting, TcpConfig& config);

/// A name of an `option` line. Throws std::runtime_error.
shm::ConnectionOption connection_option(const std::string& name);

}  // namespace chiru::script
