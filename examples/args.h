/* SPDX-License-Identifier: Apache-2.0 */
/* What the examples' command lines share: "--name value" options and "address:port". */
#ifndef CHIRU_EXAMPLES_ARGS_H
#define CHIRU_EXAMPLES_ARGS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* The value after "--name", or `otherwise`. */
static inline const char *option(int argc, char **argv, const char *name, const char *otherwise) {
    for (int i = 1; i + 1 < argc; ++i)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return otherwise;
}

static inline long number(int argc, char **argv, const char *name, long otherwise) {
    const char *text = option(argc, argv, name, NULL);
    return text == NULL ? otherwise : strtol(text, NULL, 10);
}

/* Parses "10.7.0.2:7" or "[fd07::2]:7"; returns the length, 0 if it is neither. */
static inline socklen_t parse_address(const char *text, struct sockaddr_storage *address) {
    char host[64];
    memset(address, 0, sizeof *address);
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof host) return 0;
    const in_port_t port = htons((in_port_t)strtol(colon + 1, NULL, 10));
    if (text[0] == '[' && colon[-1] == ']') {
        memcpy(host, text + 1, (size_t)(colon - text) - 2);
        host[colon - text - 2] = '\0';
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = port;
        return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 ? sizeof *v6 : 0;
    }
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    v4->sin_family = AF_INET;
    v4->sin_port = port;
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1 ? sizeof *v4 : 0;
}

/* Ends the example with a message if `result` is a negative errno value. */
static inline int must(int result, const char *what) {
    if (result >= 0) return result;
    fprintf(stderr, "%s: %s\n", what, strerror(-result));
    exit(1);
}

#endif
