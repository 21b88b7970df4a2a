// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

namespace chiru::client {

/// While this lives, pthread_cancel() waits: it must not strike between a question and its answer,
/// nor inside calls that the C library says are no cancellation points.
class NoCancel {
public:
    NoCancel() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
    ~NoCancel() { pthread_setcancelstate(before_, nullptr); }
    NoCancel(const NoCancel&) = delete;
    NoCancel& operator=(const NoCancel&) = delete;

private:
    int before_ = PTHREAD_CANCEL_ENABLE;
};

}  // namespace chiru::client
