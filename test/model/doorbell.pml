/* SPDX-License-Identifier: Apache-2.0
 *
 * The doorbell of shm/doorbell.hpp: two producers, each with a ring of its own, and the one
 * consumer that sleeps on their common eventfd. Spin explores every interleaving.
 *
 * Memory is modelled as x86 has it (total store order), which is also where the missing fence
 * shows: a store waits in its core's buffer, seen by this core and by no other, until the buffer
 * drains, which may happen at any moment and must happen at a fence. Each process here has one
 * such store under way: a producer its ring's head, the consumer its epoch.
 *
 * The eventfd is the edge epoll reports (EPOLLET): a write sets it, a wait clears it. Its count is
 * of no interest. Epochs are counted up to 2 * PUSHES + 3 and never wrap in here.
 *
 * Claims: the consumer gets every push (`popped`), it never sleeps for ever while a ring holds
 * something (a sleeper nobody wakes is an invalid end state), and no producer makes more than one
 * system call in one epoch. The last three of these macros take out what the claims rest on, and
 * the test then demands that Spin finds the lost wake-up:
 *
 *   -DPUSHES=n  how often each producer pushes
 *   -DNO_RECHECK     the consumer does not look at the rings again after arm()
 *   -DNO_FENCE       neither side has a fence
 *   -DNO_REARM       the consumer re-uses its epoch: disarm() and arm() go back to the same number
 */
#ifndef PUSHES
#define PUSHES 2
#endif
#define PRODUCERS 2
#define ALL (PUSHES * PRODUCERS)

/* What other cores see. */
byte head[PRODUCERS];
byte epoch;
bool edge;  /* the eventfd has been written since the last wait */

/* Store buffers: what its own core has stored and others do not see yet. */
byte head_buffer[PRODUCERS];
bool head_buffered[PRODUCERS];
byte epoch_buffer;
bool epoch_buffered;

byte popped;
bool asleep;

/* Cores drain their buffers when they like. A drained buffer makes this process idle, so that
 * sleeping for ever is an end state of the whole. */
active proctype Memory() {
end:
    do
    :: atomic { head_buffered[0] -> head[0] = head_buffer[0]; head_buffered[0] = false }
    :: atomic { head_buffered[1] -> head[1] = head_buffer[1]; head_buffered[1] = false }
    :: atomic { epoch_buffered -> epoch = epoch_buffer; epoch_buffered = false }
    od
}

proctype Producer(byte me) {
    byte pushed = 0;
    byte rung = 0;
    byte seen;
    do
    :: pushed < PUSHES ->
        /* RingProducer::push(): publish the head. A second store waits for the first to drain. */
        atomic { !head_buffered[me] ->
            pushed++;
            head_buffer[me] = pushed;
            head_buffered[me] = true
        }
        /* DoorbellRinger::ring() */
#ifndef NO_FENCE
        !head_buffered[me];  /* PUSHED */
#endif
        seen = epoch;
        if
        :: (seen & 1) == 1 && seen != rung ->
            assert(seen > rung);
            rung = seen;
            edge = true  /* wake() */
        :: else
        fi
    :: else -> break
    od
}

/* RingConsumer::pop() of all rings, one after the other as on a real core. */
inline pop_all(got) {
    got = 0;
    atomic { got = got + head[0] - tail[0]; tail[0] = head[0] };
    atomic { got = got + head[1] - tail[1]; tail[1] = head[1] };
    popped = popped + got
}

inline store_epoch() {
    atomic { !epoch_buffered -> epoch_buffer = own_epoch; epoch_buffered = true }
}

proctype Consumer() {
    byte tail[PRODUCERS];
    byte own_epoch = 0;
    byte got;
    do
    :: popped < ALL ->
        pop_all(got);
        if
        :: got == 0 ->
            own_epoch = own_epoch | 1;  /* arm() */
            store_epoch();
#ifndef NO_FENCE
            !epoch_buffered;  /* ARMED */
#endif
#ifndef NO_RECHECK
            pop_all(got);
#endif
            if
            :: got == 0 ->
                asleep = true;
                atomic { edge -> edge = false; asleep = false }
            :: else
            fi;
#ifdef NO_REARM
            own_epoch = own_epoch - 1;
#else
            own_epoch = own_epoch + 1;  /* disarm() */
#endif
            store_epoch()
        :: else
        fi
    :: else -> break
    od
    assert(popped == ALL)
}

init {
    atomic { run Producer(0); run Producer(1); run Consumer() }
}
