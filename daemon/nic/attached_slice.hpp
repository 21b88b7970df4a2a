// SPDX-License-Identifier: Apache-2.0
//
// What an mbuf with an attached slice carries in its private area: DPDK's record of the external
// buffer, and whom to tell when the device is done with it. So nothing is allocated for a slice.
#pragma once

#include "stack/frame.hpp"

#include <rte_mbuf_core.h>

namespace chiru::daemon::nic {

class ShardIo;

struct alignas(RTE_MBUF_PRIV_ALIGN) AttachedSlice {
    rte_mbuf_ext_shared_info shared;
    ShardIo* owner;
    SendRecord record;
};

}  // namespace chiru::daemon::nic
