/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest useful HTTP/1.1 server, on the zero-copy calls: requests are read where the network
 * put them, and one buffer with the answer is sent to everybody.
 *
 *     http_hello [--listen 0.0.0.0:8080] [--socket PATH]
 */
#include "args.h"

#include <chiru/chiru.h>

#include <errno.h>
#include <signal.h>

static const char answer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 18\r\n\r\nhello from chiru!\n";
enum { ANSWER_BYTES = sizeof answer - 1 };

static volatile sig_atomic_t stop;
static void on_signal(int number_of_signal) { stop = number_of_signal; }

/* What is kept of a connection, in its user word: how much of the "\r\n\r\n" that ends a request
 * was seen, in the low two bits, and how many answers are owed, in the rest. */
typedef uintptr_t state_word;

/* Counts the requests that end in `text`. */
static state_word scan(state_word state, const char *text, size_t bytes) {
    static const char end[] = "\r\n\r\n";
    state_word seen = state & 3;
    state_word owed = state >> 2;
    for (size_t i = 0; i < bytes; ++i) {
        if (text[i] == end[seen]) ++seen;
        else seen = text[i] == '\r';
        if (seen == 4) {
            ++owed;
            seen = 0;
        }
    }
    return owed << 2 | seen;
}

/* Returns 0 when the connection is done. */
static int serve(chiru_channel *channel, const struct chiru_event *event, uint64_t buffer) {
    state_word state = (state_word)event->user;
    struct chiru_slice slices[16];
    int count;
    while ((count = chiru_recv_slices(channel, event->socket, slices, 16)) > 0)
        for (int i = 0; i < count; ++i) {
            state = scan(state, slices[i].data, slices[i].bytes);
            chiru_release(channel, &slices[i].token, 1);
        }
    int result = 0;
    while (state >> 2 != 0 && result == 0) {
        result = chiru_send_buffer(channel, event->socket, buffer, 0, ANSWER_BYTES, 0);
        if (result == 0) state -= 4;
    }
    chiru_set_user(channel, event->socket, (void *)state);
    return count == -EAGAIN && (result == 0 || result == -EAGAIN);
}

int main(int argc, char **argv) {
    struct sockaddr_storage address;
    const char *where = option(argc, argv, "--listen", "0.0.0.0:8080");
    const socklen_t length = parse_address(where, &address);
    if (length == 0) {
        fprintf(stderr, "usage: http_hello [--listen address:port] [--socket path]\n");
        return 2;
    }
    chiru_session *session;
    chiru_channel *channel;
    chiru_socket listener;
    struct chiru_buffer buffer;
    must(chiru_attach(option(argc, argv, "--socket", NULL), "http_hello", &session), "attach");
    must(chiru_channel_create(session, &channel), "channel");
    must(chiru_buffer_alloc(channel, ANSWER_BYTES, &buffer), "buffer");
    memcpy(buffer.data, answer, ANSWER_BYTES);
    must(chiru_socket_create(channel, NULL, &listener), "socket");
    must(chiru_bind(channel, listener, (const struct sockaddr *)&address, length,
                    CHIRU_REUSE_ADDRESS), "bind");
    must(chiru_listen(channel, listener, 1024), "listen");
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    printf("http on %s\n", where);
    fflush(stdout);

    while (!stop) {
        struct chiru_event events[64];
        const int count = chiru_poll(channel, events, 64, CHIRU_FOREVER);
        if (count == -EINTR) continue;
        must(count, "poll");
        for (int i = 0; i < count; ++i) {
            chiru_socket socket;
            if (events[i].socket == listener)
                while (chiru_accept(channel, listener, NULL, &socket) == 0) {}
            else if (!serve(channel, &events[i], buffer.token))
                chiru_close(channel, events[i].socket);
        }
    }
    chiru_channel_destroy(channel);
    chiru_detach(session);
    return 0;
}
