/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chiru: TCP sockets served by a host dataplane, through shared memory.
 *
 * A program attaches to the daemon once (chiru_session), opens one channel for each thread that
 * does I/O (chiru_channel), and has any number of non-blocking sockets on a channel. A socket is a
 * number, not a file descriptor: it costs about 128 bytes while idle and counts against no limit
 * of the kernel. One call waits for the events of all sockets of a channel:
 *
 *     chiru_session *session;
 *     chiru_channel *channel;
 *     chiru_attach(NULL, "my-program", &session);
 *     chiru_channel_create(session, &channel);
 *     chiru_socket socket;
 *     chiru_socket_create(channel, my_state, &socket);
 *     chiru_connect(channel, socket, address, address_bytes);
 *     for (;;) {
 *         struct chiru_event events[64];
 *         int count = chiru_poll(channel, events, 64, CHIRU_FOREVER);
 *         for (int i = 0; i < count; ++i) handle(&events[i]);
 *     }
 *
 * Errors. Functions return 0 or a count, or a negative errno value with the meaning that
 * POSIX gives it; errno itself is left alone. -EINVAL also answers a stale socket, buffer or token.
 * When the daemon is gone every socket fails with -ECONNRESET, chiru_poll() with -EPIPE, and the
 * program attaches anew when it likes. Nothing here ends the program, throws, installs a signal
 * handler, raises SIGPIPE, starts a thread or changes an affinity.
 *
 * Threads. A session may be used by all threads. A channel, with its sockets and buffers, is used
 * by one thread at a time. Calls block only where it says so.
 *
 * fork(). A child has no part in its parent's session and must not use it; it attaches for itself.
 *
 * Waking the daemon. What is sent is visible to a daemon that is awake at once; a sleeping one is
 * woken by the next chiru_poll() or chiru_flush(), once for a burst of calls.
 */
#ifndef CHIRU_H
#define CHIRU_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CHIRU_API __attribute__((visibility("default")))

/* The interface this header describes; chiru_api_version() says what the library has. A library of
 * the same major soname has at least every function of earlier versions. */
#define CHIRU_API_VERSION 1

typedef struct chiru_session chiru_session;
typedef struct chiru_channel chiru_channel;

/* Names a socket of one channel. 0 is none. A name is never used twice in a channel's life. */
typedef uint64_t chiru_socket;

CHIRU_API int chiru_api_version(void);
/* The release, as "0.1.0". */
CHIRU_API const char *chiru_release_name(void);

/* ---- sessions and channels ------------------------------------------------------------------ */

/* Attaches to the daemon whose control socket is at `path` (NULL: $CHIRU_SOCKET, else
 * /run/chiru/control.sock). `program` is shown to operators; may be NULL. Blocks for the answer.
 * -ENOENT, -ECONNREFUSED: no daemon there. -EACCES, -EPERM: it refuses us. -EPROTO: it speaks
 * another version. */
CHIRU_API int chiru_attach(const char *path, const char *program, chiru_session **session);

/* Lets go of the session. It ends when its last channel is destroyed, or with the process: then its
 * connections are reset and its listeners closed. NULL is allowed. */
CHIRU_API void chiru_detach(chiru_session *session);

/* The daemon's process id, for people and tools. */
CHIRU_API int chiru_daemon_pid(chiru_session *session);

/* Opens a channel. Blocks for the answer. -EMFILE: the session may have no more; -ENFILE: the
 * daemon may not. */
CHIRU_API int chiru_channel_create(chiru_session *session, chiru_channel **channel);

/* Ends the channel and its sockets; open connections are reset, so close them first and poll until
 * their data has gone. Memory lent by chiru_recv_slices() is no longer valid. Blocks for the
 * answer. NULL is allowed. */
CHIRU_API void chiru_channel_destroy(chiru_channel *channel);

/* ---- events --------------------------------------------------------------------------------- */

#define CHIRU_READABLE 1u    /* chiru_recv() or chiru_accept() has something, or the end of data */
#define CHIRU_WRITABLE 2u    /* connected, or room to send again after -EAGAIN */
#define CHIRU_PEER_CLOSED 4u /* the peer will send no more; what it sent can still be read */
#define CHIRU_HANGUP 8u      /* the connection is over, both ways */
#define CHIRU_ERROR 16u      /* chiru_socket_error() says why */

struct chiru_event {
    chiru_socket socket;
    void *user;      /* as given to chiru_socket_create(), chiru_accept() or chiru_set_user() */
    uint32_t events; /* CHIRU_* bits */
    uint32_t reserved;
};

#define CHIRU_FOREVER (-1)

/* Fetches up to `count` events, waiting up to `timeout_us` microseconds for the first (0: not at
 * all; negative: without limit). Returns how many, 0 after the timeout. Events are edges: a bit is
 * reported when it becomes true, and again when more arrived; so read, accept or send until
 * -EAGAIN. Before it sleeps it polls the rings for a short time, see chiru_set_spin().
 * -EINTR: a signal came. -EPIPE: the daemon is gone, and all events about that were fetched. */
CHIRU_API int chiru_poll(chiru_channel *channel, struct chiru_event *events, int count,
                         int64_t timeout_us);

/* Wakes the daemon for what was sent since the last chiru_poll(). Needed only before doing
 * something else for a while. */
CHIRU_API int chiru_flush(chiru_channel *channel);

/* How long chiru_poll() polls before it sleeps, in microseconds. 0: run to wakeup. The default of
 * 20 suits request and answer on a core of one's own; it polls never while the daemon runs on the
 * same CPU. Polling for ever is chiru_poll() with timeout 0 in a loop: run to completion, without
 * any system call. */
CHIRU_API int chiru_set_spin(chiru_channel *channel, uint32_t microseconds);

/* For a program with an event loop of its own: a descriptor that becomes readable (level-triggered,
 * in epoll, poll or select) when chiru_poll() has events, provided that chiru_arm() came before. It
 * belongs to the channel; do not read, write or close it. The loop is
 *
 *     int64_t limit_us;
 *     if (chiru_arm(channel, &limit_us) == 1) wait_for_descriptors(limit_us);
 *     while ((count = chiru_poll(channel, events, n, 0)) > 0) handle(events, count);
 *
 * chiru_arm() returns 1 if the program may sleep, 0 if there are events to fetch first, and -EPIPE
 * when the daemon is gone. The sleep may last `limit_us` microseconds: -1, without limit, but for
 * the rare times when what was sent did not all fit and nobody can tell when room is back. */
CHIRU_API int chiru_channel_fd(chiru_channel *channel);
CHIRU_API int chiru_arm(chiru_channel *channel, int64_t *limit_us);

/* ---- sockets -------------------------------------------------------------------------------- */

/* A fresh socket. -ENOMEM. */
CHIRU_API int chiru_socket_create(chiru_channel *channel, void *user, chiru_socket *socket);
/* Changes the word that comes with the socket's events. */
CHIRU_API int chiru_set_user(chiru_channel *channel, chiru_socket socket, void *user);

#define CHIRU_REUSE_ADDRESS 1u /* SO_REUSEADDR */
#define CHIRU_REUSE_PORT 2u    /* SO_REUSEPORT */
#define CHIRU_V6_ONLY 4u       /* IPV6_V6ONLY: [::] does not take IPv4 as well */

/* Takes a local address and port, AF_INET or AF_INET6; port 0 lets the daemon choose. Before
 * chiru_connect() or chiru_listen(). Blocks for the answer. -EADDRINUSE, -EADDRNOTAVAIL. */
CHIRU_API int chiru_bind(chiru_channel *channel, chiru_socket socket,
                         const struct sockaddr *address, socklen_t address_bytes,
                         uint32_t flags);

/* Starts to connect; returns 0 at once. CHIRU_WRITABLE follows, or CHIRU_ERROR. */
CHIRU_API int chiru_connect(chiru_channel *channel, chiru_socket socket,
                            const struct sockaddr *address, socklen_t address_bytes);

/* Accepts connections on a bound socket. Up to `backlog` completed ones wait in the daemon for
 * every shard, beside those that already wait in this channel. Blocks for the answer. */
CHIRU_API int chiru_listen(chiru_channel *channel, chiru_socket socket, int backlog);

/* Lets another channel, of this process or of a process of the same user, accept from the same
 * listener: one asks for the ticket, the other listens by it, with a fresh socket. */
struct chiru_ticket {
    uint64_t words[3];
};
CHIRU_API int chiru_listener_ticket(chiru_channel *channel, chiru_socket listener,
                                    struct chiru_ticket *ticket);
CHIRU_API int chiru_listen_by_ticket(chiru_channel *channel, chiru_socket socket,
                                     const struct chiru_ticket *ticket);

/* Takes a connection that waits. -EAGAIN: none does. */
CHIRU_API int chiru_accept(chiru_channel *channel, chiru_socket listener, void *user,
                           chiru_socket *socket);

/* No more data from us: the peer sees the end after what was sent (CHIRU_SHUT_SEND); or what it
 * still sends is dropped (CHIRU_SHUT_RECEIVE). The bits may be combined. */
#define CHIRU_SHUT_SEND 1u
#define CHIRU_SHUT_RECEIVE 2u
CHIRU_API int chiru_shutdown(chiru_channel *channel, chiru_socket socket, uint32_t how);

/* Gives the socket back; its name is stale at once. What was sent still arrives, but with received
 * data unread the connection is reset (RFC 2525 section 2.17). Blocks for the daemon if the socket
 * was bound. */
CHIRU_API int chiru_close(chiru_channel *channel, chiru_socket socket);
/* The same with a reset: what was sent may be lost. */
CHIRU_API int chiru_abort(chiru_channel *channel, chiru_socket socket);

/* The pending error as a positive errno value, 0 if none; asking clears it. */
CHIRU_API int chiru_socket_error(chiru_channel *channel, chiru_socket socket);

/* As getsockname(2) and getpeername(2); -ENOTCONN before there is one. */
CHIRU_API int chiru_getsockname(chiru_channel *channel, chiru_socket socket,
                                struct sockaddr *address, socklen_t *address_bytes);
CHIRU_API int chiru_getpeername(chiru_channel *channel, chiru_socket socket,
                                struct sockaddr *address, socklen_t *address_bytes);

/* ---- data ----------------------------------------------------------------------------------- */

#define CHIRU_MORE 1u /* as MSG_MORE: a partial segment may wait for the next send */
#define CHIRU_PEEK 2u /* as MSG_PEEK: the bytes stay */

/* Copies up to `bytes` bytes and sends them; returns how many. Fewer, or -EAGAIN for none, when the
 * socket's limit (CHIRU_SEND_BUFFER), the session's memory or a ring is full: CHIRU_WRITABLE
 * follows. -EPIPE: the connection is over, or was shut down for sending. */
CHIRU_API ssize_t chiru_send(chiru_channel *channel, chiru_socket socket, const void *data,
                             size_t bytes, uint32_t flags);

/* Copies received data out; returns how many bytes, 0 at the end of data. -EAGAIN: none yet. The
 * connection's error, once, if it ended by one. */
CHIRU_API ssize_t chiru_recv(chiru_channel *channel, chiru_socket socket, void *data,
                             size_t bytes, uint32_t flags);

/* Received data in place, where the network put it. Read-only, and valid until released, also after
 * the socket is closed. The peer's window opens by release, so do not sit on it. */
struct chiru_slice {
    const void *data;
    size_t bytes;
    uint64_t token; /* for chiru_release() */
};

/* Fetches up to `count` pieces without copying; returns how many, 0 at the end of data; else as
 * chiru_recv(). */
CHIRU_API int chiru_recv_slices(chiru_channel *channel, chiru_socket socket,
                                struct chiru_slice *slices, int count);
CHIRU_API int chiru_release(chiru_channel *channel, const uint64_t *tokens, int count);

/* Send buffers, filled by the program and sent without a copy. A buffer may be sent any number of
 * times, in parts, on any sockets of its channel; once sent, the bytes must not change any more,
 * for they may be sent again. After chiru_buffer_free() the memory comes back by itself when
 * everything sent from it is acknowledged. So: allocate, fill, send, free. */
#define CHIRU_BUFFER_MAX 65536

struct chiru_buffer {
    void *data;
    size_t bytes; /* at least as many as asked for */
    uint64_t token;
};

/* -EMSGSIZE beyond CHIRU_BUFFER_MAX; -ENOBUFS: the session's memory is in use. */
CHIRU_API int chiru_buffer_alloc(chiru_channel *channel, size_t bytes,
                                 struct chiru_buffer *buffer);
/* Sends `bytes` bytes from `offset` on: all, or -EAGAIN, then CHIRU_WRITABLE follows. */
CHIRU_API int chiru_send_buffer(chiru_channel *channel, chiru_socket socket, uint64_t token,
                                size_t offset, size_t bytes, uint32_t flags);
CHIRU_API int chiru_buffer_free(chiru_channel *channel, uint64_t token);

/* Bytes received and not yet read; bytes sent and not yet acknowledged. */
CHIRU_API ssize_t chiru_unread(chiru_channel *channel, chiru_socket socket);
CHIRU_API ssize_t chiru_unacknowledged(chiru_channel *channel, chiru_socket socket);

/* ---- datagrams ------------------------------------------------------------------------------ */

/* A fresh socket becomes a UDP socket with an address and port of its own; port 0 lets the daemon
 * choose, the address may be a multicast group's. `flags` as chiru_bind(). CHIRU_READABLE tells of
 * datagrams, CHIRU_WRITABLE of room to send again. Blocks for the answer. */
CHIRU_API int chiru_udp_bind(chiru_channel *channel, chiru_socket socket,
                             const struct sockaddr *address, socklen_t address_bytes,
                             uint32_t flags);

/* Sets the peer: only its datagrams are received, and ICMP errors about it are told (-ECONNREFUSED
 * by the next call). NULL dissolves that. Blocks for the answer. */
CHIRU_API int chiru_udp_connect(chiru_channel *channel, chiru_socket socket,
                                const struct sockaddr *address, socklen_t address_bytes);

/* Joins (`join` 1) or leaves (0) a multicast group on `interface`, as chiru_datagram counts them;
 * 0: where routes lead. Blocks for the answer. */
CHIRU_API int chiru_udp_membership(chiru_channel *channel, chiru_socket socket,
                                   const struct sockaddr *group, socklen_t group_bytes,
                                   uint32_t interface_number, int join);

#define CHIRU_DONT_FRAGMENT 4u /* -EMSGSIZE if it is larger than the path takes */
#define CHIRU_NO_LOOP 8u       /* to a group: not to members on this host */

/* Sends a datagram of `bytes` bytes, or with `segment_bytes` several of that size, to `address`
 * (NULL: the peer). All or -EAGAIN: CHIRU_WRITABLE follows. -EMSGSIZE: larger than any datagram.
 * -EINVAL: more than 128 segments.
 * What the path does not take goes in fragments. */
CHIRU_API ssize_t chiru_sendto(chiru_channel *channel, chiru_socket socket, const void *data,
                               size_t bytes, uint32_t flags, uint16_t segment_bytes,
                               const struct sockaddr *address, socklen_t address_bytes);
/* The same from a send buffer, without a copy. */
CHIRU_API ssize_t chiru_sendto_buffer(chiru_channel *channel, chiru_socket socket, uint64_t token,
                                      size_t offset, size_t bytes, uint32_t flags,
                                      uint16_t segment_bytes, const struct sockaddr *address,
                                      socklen_t address_bytes);

/* What came with a datagram. */
struct chiru_datagram {
    struct sockaddr_storage from;
    uint32_t bytes;            /* of the whole datagram, however much was copied */
    uint16_t interface_number; /* from 1; 0: from this host */
    uint8_t time_to_live;      /* as it arrived; 0: not known */
    uint8_t type_of_service;
};

/* Copies the oldest datagram out, as much as there is room for; the rest of it is lost. Returns how
 * many bytes were copied. -EAGAIN: none waits. CHIRU_PEEK leaves it there. `info` may be NULL. */
CHIRU_API ssize_t chiru_recvfrom(chiru_channel *channel, chiru_socket socket, void *data,
                                 size_t bytes, uint32_t flags, struct chiru_datagram *info);

/* The oldest datagram in place: returns in how many pieces it lies. One, unless it came in
 * fragments. -EMSGSIZE: in more than `count`, and it stays. Release the pieces as others. */
CHIRU_API int chiru_recv_datagram(chiru_channel *channel, chiru_socket socket,
                                  struct chiru_slice *slices, int count,
                                  struct chiru_datagram *info);

/* ---- options and information ---------------------------------------------------------------- */

/* Options may be set at any time. Those of a listener go to the connections it accepts. */
enum chiru_option {
    CHIRU_NODELAY = 1,         /* 0 or 1: send small segments at once (Nagle off, RFC 896) */
    CHIRU_CORK = 2,            /* 0 or 1: hold back partial segments */
    CHIRU_KEEPALIVE = 3,       /* 0 or 1 (RFC 9293 section 3.8.4) */
    CHIRU_KEEP_IDLE = 4,       /* seconds before the first probe */
    CHIRU_KEEP_INTERVAL = 5,   /* seconds between probes */
    CHIRU_KEEP_COUNT = 6,      /* probes before giving up */
    CHIRU_USER_TIMEOUT = 7,    /* milliseconds (RFC 5482); 0: the default */
    CHIRU_QUICKACK = 8,        /* 0 or 1: acknowledge without delay */
    CHIRU_RECEIVE_BUFFER = 9,  /* bytes the window may grow to; 0: automatic */
    CHIRU_SEND_BUFFER = 10,    /* bytes that may be sent and not yet acknowledged; else automatic */
    CHIRU_LINGER_ZERO = 11,    /* 0 or 1: close resets */
    CHIRU_CONGESTION = 12,     /* CHIRU_CUBIC ... */
    CHIRU_MAX_SEGMENT = 13,    /* bytes; set before connecting or listening, in either direction */
    CHIRU_TYPE_OF_SERVICE = 14,/* IPv4 TOS or IPv6 traffic class */
    CHIRU_TIME_TO_LIVE = 15,   /* IPv4 TTL or IPv6 hop limit */
    CHIRU_DEFER_ACCEPT = 16,   /* of a listener, before it listens: accept only once data came, or
                                  after so many seconds */
    CHIRU_UNSENT_LOW_WATER = 17, /* bytes not sent yet, at which send says -EAGAIN; writable again
                                    below half of it (TCP_NOTSENT_LOWAT); 0: no bound */
    CHIRU_FAST_OPEN = 18,      /* data in the SYN (RFC 7413), which the peer may receive twice.
                                  Before connecting, 1: CHIRU_WRITABLE comes at once where the
                                  destination's cookie is known, and the first chiru_send() travels
                                  with the SYN; elsewhere it comes with the connection. Before
                                  listening: how many connections at once may be accepted and
                                  used before their handshake is complete; 0: none */
    CHIRU_MAX_PACING_RATE = 19 /* bytes a second to send at most, evenly; 0: no bound */
};

#define CHIRU_CUBIC 0
#define CHIRU_RENO 1
#define CHIRU_DCTCP 2
#define CHIRU_BBR 3

/* -EINVAL: no such option, or a value out of range. */
CHIRU_API int chiru_set_option(chiru_channel *channel, chiru_socket socket,
                               enum chiru_option option, uint64_t value);

/* A snapshot, of different moments between fields. Times in microseconds. */
struct chiru_info {
    uint64_t rx_bytes;              /* payload, in order */
    uint64_t tx_bytes;              /* payload, first transmissions */
    uint64_t rx_segments;
    uint64_t tx_segments;
    uint64_t retransmitted_segments;
    uint64_t out_of_order_segments;
    uint32_t srtt_us;
    uint32_t rttvar_us;
    uint32_t min_rtt_us;
    uint32_t rto_us;
    uint32_t cwnd_bytes;
    uint32_t ssthresh_bytes;
    uint32_t mss_bytes;
    uint32_t snd_wnd_bytes;
    uint32_t rcv_wnd_bytes;
    uint32_t shard;
    uint64_t delivery_rate;         /* bytes a second that arrived lately; 0: not measured yet */
    uint64_t pacing_rate;           /* bytes a second it sends at most; 0: not paced */
    uint32_t congestion;            /* CHIRU_CUBIC ... */
    uint32_t ecn;                   /* 1: both ends agreed to it (RFC 3168) */
    uint64_t reserved[1];
};

/* Asks the daemon and blocks for the answer: for people, not for the path of data. */
CHIRU_API int chiru_socket_info(chiru_channel *channel, chiru_socket socket,
                                struct chiru_info *info);

#ifdef __cplusplus
}
#endif

#endif
