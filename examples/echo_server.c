/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends back what it receives, in C on the native API.
 *
 *     echo_server [--listen 0.0.0.0:7] [--socket PATH] [--spin MICROSECONDS]
 *
 * Back-pressure is the point to notice: what cannot be sent now is not read either, so a peer that
 * does not read is stopped by its own window, and no queue grows here.
 */
#include "args.h"

#include <chiru/chiru.h>

#include <errno.h>
#include <signal.h>

static volatile sig_atomic_t stop;
static void on_signal(int number_of_signal) { stop = number_of_signal; }

/* Peeks, sends as much as goes, then drops what was sent. Returns 0 when the peer is done. */
static int echo(chiru_channel *channel, chiru_socket socket) {
    char buffer[65536];
    for (;;) {
        const ssize_t received = chiru_recv(channel, socket, buffer, sizeof buffer, CHIRU_PEEK);
        if (received == -EAGAIN) return 1;
        if (received <= 0) return 0;
        const ssize_t sent = chiru_send(channel, socket, buffer, (size_t)received, 0);
        if (sent == -EAGAIN) return 1; /* CHIRU_WRITABLE will come */
        if (sent < 0) return 0;
        chiru_recv(channel, socket, buffer, (size_t)sent, 0);
    }
}

static void accept_all(chiru_channel *channel, chiru_socket listener) {
    chiru_socket socket;
    while (chiru_accept(channel, listener, NULL, &socket) == 0)
        chiru_set_option(channel, socket, CHIRU_NODELAY, 1);
}

int main(int argc, char **argv) {
    struct sockaddr_storage address;
    const char *where = option(argc, argv, "--listen", "0.0.0.0:7");
    const socklen_t length = parse_address(where, &address);
    if (length == 0) {
        fprintf(stderr, "usage: echo_server [--listen address:port] [--socket path] [--spin us]\n");
        return 2;
    }
    chiru_session *session;
    chiru_channel *channel;
    chiru_socket listener;
    must(chiru_attach(option(argc, argv, "--socket", NULL), "echo_server", &session), "attach");
    must(chiru_channel_create(session, &channel), "channel");
    chiru_set_spin(channel, (uint32_t)number(argc, argv, "--spin", 20));
    must(chiru_socket_create(channel, NULL, &listener), "socket");
    must(chiru_bind(channel, listener, (const struct sockaddr *)&address, length,
                    CHIRU_REUSE_ADDRESS), "bind");
    must(chiru_listen(channel, listener, 1024), "listen");
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    printf("echo on %s\n", where);
    fflush(stdout);

    while (!stop) {
        struct chiru_event events[64];
        const int count = chiru_poll(channel, events, 64, CHIRU_FOREVER);
        if (count == -EINTR) continue;
        must(count, "poll");
        for (int i = 0; i < count; ++i) {
            if (events[i].socket == listener) accept_all(channel, listener);
            else if (!echo(channel, events[i].socket)) chiru_close(channel, events[i].socket);
        }
    }
    chiru_channel_destroy(channel);
    chiru_detach(session);
    return 0;
}
