// SPDX-License-Identifier: Apache-2.0
//
// The operator's choices in the words of the data plane.
#pragma once

#include "daemon/config/config.hpp"
#include "daemon/dataplane/plane.hpp"

namespace chiru::daemon {

/// `secret` keys the stacks: fresh randomness at every start.
PlaneConfig plane_config(const Config& config, const SipKey& secret);

}  // namespace chiru::daemon
