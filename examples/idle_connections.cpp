// SPDX-License-Identifier: Apache-2.0
//
// Holds many idle connections in one process and says what one costs, in this process and in the
// daemon.
//
//   idle_connections --to 10.7.0.2:7000 [--connections 100000] [--ports 4] [--serve 1]
//                    [--hold SECONDS] [--socket PATH]
//
// One address and port give some 28 000 connections before the local port numbers run out, so they
// are spread over `ports` consecutive ports. With --serve 1 this process listens there as well and
// holds both ends of each connection.
#include "args.h"

#include <chiru/chiru.hpp>

#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace {

/// Resident memory of a process, 0 if it cannot be known.
std::int64_t resident_bytes(int pid) {
    std::FILE* file = std::fopen(("/proc/" + std::to_string(pid) + "/statm").c_str(), "r");
    if (file == nullptr) return 0;
    long pages = 0;
    if (std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    std::fclose(file);
    return std::int64_t{pages} * sysconf(_SC_PAGESIZE);
}

void set_port(sockaddr_storage& address, long port) {
    const in_port_t value = htons(static_cast<in_port_t>(port));
    if (address.ss_family == AF_INET) reinterpret_cast<sockaddr_in&>(address).sin_port = value;
    else reinterpret_cast<sockaddr_in6&>(address).sin6_port = value;
}

long port_of(const sockaddr_storage& address) {
    return ntohs(address.ss_family == AF_INET
                     ? reinterpret_cast<const sockaddr_in&>(address).sin_port
                     : reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

class Holder {
public:
    Holder(chiru::Channel& channel, const sockaddr_storage& address, socklen_t length, long ports)
        : channel_(channel), address_(address), length_(length), ports_(ports),
          first_port_(port_of(address)) {}

    void serve() {
        for (long i = 0; i < ports_; ++i) {
            set_port(address_, first_port_ + i);
            chiru::Socket listener = *channel_.socket(&listeners_);
            const auto bound = listener.bind(address(), length_, CHIRU_REUSE_ADDRESS);
            if (!bound) must(-bound.error().value(), "bind");
            const auto listening = listener.listen(4096);
            if (!listening) must(-listening.error().value(), "listen");
            listeners_.push_back(std::move(listener));
        }
    }

    /// At most this many handshakes at a time, so that no backlog overflows.
    static constexpr std::size_t kAtOnce = 512;

    void connect(std::size_t count) {
        sockets_.reserve(count);
        while (established_ < count) {
            while (sockets_.size() < count && sockets_.size() - established_ < kAtOnce) start();
            poll(std::chrono::seconds(10));
        }
        while (!listeners_.empty() && accepted_.size() < count) poll(std::chrono::seconds(10));
    }

    void hold(long seconds) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
        while (std::chrono::steady_clock::now() < end)
            static_cast<void>(channel_.poll(events_, std::chrono::seconds(1)));
    }

private:
    const sockaddr* address() const { return reinterpret_cast<const sockaddr*>(&address_); }

    void start() {
        set_port(address_, first_port_ + static_cast<long>(sockets_.size()) % ports_);
        sockets_.push_back(std::move(*channel_.socket()));
        const auto started = sockets_.back().connect(address(), length_);
        if (!started) must(-started.error().value(), "connect");
    }

    void poll(std::chrono::microseconds timeout) {
        const auto fetched = channel_.poll(events_, timeout);
        if (!fetched) must(-fetched.error().value(), "poll");
        if (fetched->empty()) must(-ETIMEDOUT, "connect");
        for (const chiru_event& event : *fetched) {
            if (event.user == &listeners_) {
                for (chiru::Socket& listener : listeners_)
                    while (auto taken = listener.accept(this))
                        accepted_.push_back(std::move(*taken));
            } else if ((event.events & (CHIRU_ERROR | CHIRU_HANGUP)) != 0) {
                must(-ECONNREFUSED, "connect");
            } else if (event.user == nullptr) {
                ++established_;
            }
        }
    }

    chiru::Channel& channel_;
    sockaddr_storage address_;
    socklen_t length_;
    long ports_;
    long first_port_;
    std::size_t established_ = 0;
    std::vector<chiru::Socket> listeners_;
    std::vector<chiru::Socket> sockets_;
    std::vector<chiru::Socket> accepted_;
    std::array<chiru_event, 256> events_;
};

}  // namespace

int main(int argc, char** argv) {
    sockaddr_storage address;
    const socklen_t length = parse_address(option(argc, argv, "--to", ""), &address);
    const long count = number(argc, argv, "--connections", 100'000);
    const long ports = number(argc, argv, "--ports", 4);
    if (length == 0 || count < 1 || ports < 1) {
        std::fprintf(stderr, "usage: idle_connections --to address:port [--connections n]"
                             " [--ports n] [--serve 1] [--hold seconds] [--socket path]\n");
        return 2;
    }
    auto session = chiru::Session::attach("idle_connections",
                                          option(argc, argv, "--socket", nullptr));
    if (!session) must(-session.error().value(), "attach");
    auto channel = session->open_channel();
    if (!channel) must(-channel.error().value(), "channel");
    const int daemon = chiru_daemon_pid(session->get());

    Holder holder(*channel, address, length, ports);
    const bool serves = number(argc, argv, "--serve", 0) != 0;
    if (serves) holder.serve();
    const std::int64_t own_before = resident_bytes(getpid());
    const std::int64_t daemon_before = resident_bytes(daemon);
    const auto start = std::chrono::steady_clock::now();
    holder.connect(static_cast<std::size_t>(count));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    const std::int64_t own = resident_bytes(getpid()) - own_before;
    const std::int64_t theirs = resident_bytes(daemon) - daemon_before;
    std::printf("%ld idle connections%s in %.1f s (%.0f/s): per connection %lld bytes here, "
                "%lld bytes in the daemon\n", count, serves ? ", both ends," : "", took.count(),
                static_cast<double>(count) / took.count(), static_cast<long long>(own / count),
                static_cast<long long>(theirs / count));
    std::fflush(stdout);
    holder.hold(number(argc, argv, "--hold", 0));
    return 0;
}
