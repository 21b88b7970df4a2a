// SPDX-License-Identifier: Apache-2.0
//
// The load for bench_echo_server, again on nothing but POSIX: N connections, each with one request
// under way (a closed loop), one thread, one epoll set. Every answer is compared with its request.
// Prints one line of JSON: requests a second and the latency percentiles in microseconds.
//
//   bench_echo_client ADDRESS PORT [--connections N] [--bytes N] [--seconds N] [--warmup N]

#include "test/bench/histogram.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

using chiru::bench::Histogram;
using Clock = std::chrono::steady_clock;

struct Options {
    const char* address = nullptr;
    std::uint16_t port = 0;
    std::size_t connections = 1;
    std::size_t bytes = 64;
    double seconds = 3;
    double warmup = 0.5;
};

struct Connection {
    int socket = -1;
    std::uint64_t requests = 0;  ///< written into each request, so a mixed-up answer is seen
    std::size_t received = 0;    ///< of the answer under way
    Clock::time_point asked;
};

struct Outcome {
    Histogram latency;
    std::uint64_t failures = 0;
    double seconds = 0;
};

bool parse(int count, char** arguments, Options& options) {
    if (count < 3 || count % 2 == 0) return false;
    const auto number = [](const char* text, auto& value) {
        const std::string_view view = text;
        return std::from_chars(view.data(), view.data() + view.size(), value).ec == std::errc{};
    };
    options.address = arguments[1];
    if (!number(arguments[2], options.port)) return false;
    for (int i = 3; i + 1 < count; i += 2) {
        const std::string_view key = arguments[i];
        const char* value = arguments[i + 1];
        const bool known = (key == "--connections" && number(value, options.connections)) ||
                           (key == "--bytes" && number(value, options.bytes)) ||
                           (key == "--seconds" && number(value, options.seconds)) ||
                           (key == "--warmup" && number(value, options.warmup));
        if (!known) return false;
    }
    return options.port != 0 && options.connections > 0 && options.bytes >= sizeof(std::uint64_t);
}

int connect_to(const Options& options) {
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(options.port);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(options.port);
    const bool is_v4 = inet_pton(AF_INET, options.address, &v4.sin_addr) == 1;
    if (!is_v4) inet_pton(AF_INET6, options.address, &v6.sin6_addr);
    const int socket_fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    const auto* name = is_v4 ? reinterpret_cast<const sockaddr*>(&v4)
                             : reinterpret_cast<const sockaddr*>(&v6);
    const auto length = static_cast<socklen_t>(is_v4 ? sizeof v4 : sizeof v6);
    if (socket_fd < 0 || connect(socket_fd, name, length) != 0) return -1;
    const int on = 1;
    setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return socket_fd;
}

class Load {
public:
    explicit Load(const Options& options)
        : options_(options), request_(options.bytes, 'x'), answer_(options.bytes, '\0') {}

    bool open() {
        epoll_ = epoll_create1(EPOLL_CLOEXEC);
        connections_.resize(options_.connections);
        for (std::size_t i = 0; i < connections_.size(); ++i) {
            const int socket_fd = connect_to(options_);
            if (socket_fd < 0) return false;
            connections_[i].socket = socket_fd;
            epoll_event event{};
            event.events = EPOLLIN;
            event.data.u64 = i;
            if (epoll_ctl(epoll_, EPOLL_CTL_ADD, socket_fd, &event) != 0) return false;
        }
        return true;
    }

    Outcome run() {
        Outcome outcome;
        const Clock::time_point start = Clock::now();
        const Clock::time_point measure = start + seconds(options_.warmup);
        const Clock::time_point end = measure + seconds(options_.seconds);
        for (Connection& connection : connections_) ask(connection, outcome);
        std::array<epoll_event, 256> events;
        Clock::time_point now = start;
        while (now < end && outcome.failures == 0) {
            const int ready =
                epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 1000);
            now = Clock::now();
            if (ready == 0) ++outcome.failures;  // a second without one answer: it hangs
            for (int i = 0; i < ready; ++i) {
                Connection& connection = connections_[events[static_cast<std::size_t>(i)].data.u64];
                take(connection, outcome, measure);
            }
        }
        outcome.seconds = std::chrono::duration<double>(now - measure).count();
        return outcome;
    }

private:
    static Clock::duration seconds(double count) {
        return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
    }

    void ask(Connection& connection, Outcome& outcome) {
        ++connection.requests;
        connection.received = 0;
        std::memcpy(request_.data(), &connection.requests, sizeof connection.requests);
        connection.asked = Clock::now();
        const ssize_t put = send(connection.socket, request_.data(), request_.size(), MSG_NOSIGNAL);
        if (put != static_cast<ssize_t>(request_.size())) ++outcome.failures;
    }

    void take(Connection& connection, Outcome& outcome, Clock::time_point measure) {
        const std::size_t missing = options_.bytes - connection.received;
        char* place = answer_.data() + connection.received;
        const ssize_t got = recv(connection.socket, place, missing, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (got <= 0) {
            ++outcome.failures;
            return;
        }
        std::uint64_t answered = connection.requests;
        if (connection.received == 0 && got >= 8) std::memcpy(&answered, place, sizeof answered);
        if (answered != connection.requests) ++outcome.failures;
        connection.received += static_cast<std::size_t>(got);
        if (connection.received < options_.bytes) return;
        const Clock::time_point now = Clock::now();
        if (now >= measure)
            outcome.latency.add(static_cast<std::uint64_t>(
                std::chrono::nanoseconds(now - connection.asked).count()));
        ask(connection, outcome);
    }

    const Options& options_;
    std::string request_;
    std::string answer_;
    std::vector<Connection> connections_;
    int epoll_ = -1;
};

void print(const Options& options, const Outcome& outcome) {
    const auto micros = [&](double fraction) {
        return static_cast<double>(outcome.latency.percentile(fraction)) / 1e3;
    };
    std::printf("{\"connections\": %zu, \"bytes\": %zu, \"seconds\": %.3f, \"requests\": %llu, "
                "\"rate\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
                "\"max_us\": %.1f, \"failures\": %llu}\n",
                options.connections, options.bytes, outcome.seconds,
                static_cast<unsigned long long>(outcome.latency.count()),
                static_cast<double>(outcome.latency.count()) / outcome.seconds, micros(0.5),
                micros(0.99), micros(0.999), static_cast<double>(outcome.latency.largest()) / 1e3,
                static_cast<unsigned long long>(outcome.failures));
}

}  // namespace

int main(int count, char** arguments) {
    Options options;
    if (!parse(count, arguments, options)) {
        std::fprintf(stderr,
                     "usage: %s ADDRESS PORT [--connections N] [--bytes N] [--seconds N] "
                     "[--warmup N]\n",
                     arguments[0]);
        return 2;
    }
    Load load(options);
    if (!load.open()) {
        std::fprintf(stderr, "%s: connect to %s port %u: %s\n", arguments[0], options.address,
                     static_cast<unsigned>(options.port), std::strerror(errno));
        return 1;
    }
    const Outcome outcome = load.run();
    print(options, outcome);
    return outcome.failures == 0 && outcome.latency.count() > 0 ? 0 : 1;
}
