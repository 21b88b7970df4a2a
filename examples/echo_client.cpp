// SPDX-License-Identifier: Apache-2.0
//
// Measures an echo server: each connection has one request under way.
//
//   echo_client --to 10.7.0.2:7 [--connections 32] [--size 64] [--seconds 5] [--spin MICROSECONDS]
//               [--socket PATH]
//
// Prints requests per second and the median, 99th and 99.9th percentile of the round trip.
#include "args.h"

#include <chiru/chiru.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Connection {
    chiru::Socket socket;
    std::size_t unsent = 0;   ///< bytes of the request that found no room yet
    std::size_t awaited = 0;  ///< bytes of the answer still to come
    Clock::time_point asked;
};

/// Round trips in buckets of 1/16 of a power of two nanoseconds: 6 % exact, and no memory grows.
class Histogram {
public:
    void add(std::chrono::nanoseconds time) {
        const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(time.count(), 16));
        const auto power = static_cast<std::uint32_t>(63 - __builtin_clzll(ns));
        ++counts_[power * 16 + ((ns >> (power - 4)) & 15)];
        ++total_;
    }
    std::uint64_t total() const { return total_; }
    double micros_at(double share) const {
        const auto rank = static_cast<std::uint64_t>(share * static_cast<double>(total_));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            seen += counts_[i];
            if (seen > rank)
                return static_cast<double>((17 + i % 16) << (i / 16)) / 16 / 1000;
        }
        return 0;
    }

private:
    std::array<std::uint64_t, 64 * 16> counts_{};
    std::uint64_t total_ = 0;
};

class Load {
public:
    Load(chiru::Channel& channel, std::size_t size) : channel_(channel), request_(size) {}

    void connect(std::size_t count, const sockaddr_storage& address, socklen_t length) {
        connections_.resize(count);
        for (Connection& connection : connections_) {
            connection.socket = std::move(*channel_.socket(&connection));
            static_cast<void>(connection.socket.set_option(CHIRU_NODELAY, 1));
            const auto started =
                connection.socket.connect(reinterpret_cast<const sockaddr*>(&address), length);
            if (!started) must(-started.error().value(), "connect");
        }
    }

    void run(Clock::time_point end) {
        std::array<chiru_event, 64> events;
        while (Clock::now() < end) {
            const auto fetched = channel_.poll(events, std::chrono::milliseconds(100));
            if (!fetched) must(-fetched.error().value(), "poll");
            for (const chiru_event& event : *fetched)
                handle(*static_cast<Connection*>(event.user), event.events);
        }
    }

    Histogram times;

private:
    void ask(Connection& connection) {
        connection.asked = Clock::now();
        connection.awaited = connection.unsent = request_.size();
        send(connection);
    }

    void send(Connection& connection) {
        const auto sent =
            connection.socket.send(std::span(request_).last(connection.unsent));
        if (sent) connection.unsent -= *sent;
        else if (sent.error().value() != EAGAIN) must(-sent.error().value(), "send");
    }

    void handle(Connection& connection, std::uint32_t events) {
        if ((events & (CHIRU_ERROR | CHIRU_HANGUP)) != 0)
            must(-std::max(connection.socket.take_error().value(), 1), "connection lost");
        if (connection.awaited == 0) return ask(connection);  // it has just connected
        if (connection.unsent != 0) send(connection);
        while (true) {
            const auto received = connection.socket.receive(answer_);
            if (!received) return;  // the rest is still to come
            if (*received == 0) must(-ECONNRESET, "the server closed");
            connection.awaited -= std::min(connection.awaited, *received);
            if (connection.awaited != 0) continue;
            times.add(Clock::now() - connection.asked);
            return ask(connection);
        }
    }

    chiru::Channel& channel_;
    std::vector<std::byte> request_;
    std::array<std::byte, 65536> answer_;
    std::vector<Connection> connections_;
};

}  // namespace

int main(int argc, char** argv) {
    sockaddr_storage address;
    const socklen_t length = parse_address(option(argc, argv, "--to", ""), &address);
    const long connections = number(argc, argv, "--connections", 32);
    const long size = number(argc, argv, "--size", 64);
    const long seconds = number(argc, argv, "--seconds", 5);
    if (length == 0 || connections < 1 || size < 1 || size > (1 << 20) || seconds < 1) {
        std::fprintf(stderr, "usage: echo_client --to address:port [--connections n] [--size bytes]"
                             " [--seconds n] [--spin us] [--socket path]\n");
        return 2;
    }
    auto session = chiru::Session::attach("echo_client", option(argc, argv, "--socket", nullptr));
    if (!session) must(-session.error().value(), "attach");
    auto channel = session->open_channel();
    if (!channel) must(-channel.error().value(), "channel");
    channel->set_spin(std::chrono::microseconds(number(argc, argv, "--spin", 20)));

    Load load(*channel, static_cast<std::size_t>(size));
    load.connect(static_cast<std::size_t>(connections), address, length);
    const auto start = Clock::now();
    load.run(start + std::chrono::seconds(seconds));
    const std::chrono::duration<double> took = Clock::now() - start;
    std::printf("%ld connections, %ld bytes: %.0f requests/s, p50 %.1f us, p99 %.1f us, "
                "p99.9 %.1f us\n", connections, size,
                static_cast<double>(load.times.total()) / took.count(),
                load.times.micros_at(0.5), load.times.micros_at(0.99),
                load.times.micros_at(0.999));
    return load.times.total() == 0 ? 1 : 0;
}
