// SPDX-License-Identifier: Apache-2.0
//
// Both ends of a transfer over a bad network, plain POSIX: what arrived is what the receiver says.
//
//   bench_transfer --serve PORT
//   bench_transfer --to ADDRESS PORT --mode stream|requests [--seconds S] [--connections N]
//                  [--request-bytes N] [--congestion NAME]
//
// stream    sends as fast as it goes; the receiver tells now and then how much it has
// requests  each connection sends a request and waits for the receiver's byte that says "all here".
//           It says so in several segments, and the first that is there counts: else the time would
//           be that of the receiver's own retransmission timer whenever its one segment was lost
//
// The client prints one line of JSON.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr std::size_t kPiece = 65'536;
constexpr std::chrono::milliseconds kReport{20};
constexpr std::uint64_t kAnswers = 4;

struct Options {
    int serve = 0;
    const char* address = nullptr;
    int port = 0;
    bool requests = false;
    double seconds = 2;
    int connections = 1;
    std::uint32_t request_bytes = kPiece;
    const char* congestion = nullptr;
};

/// What the client says first.
struct Greeting {
    std::uint32_t request_bytes;  ///< 0: a stream
};

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

bool read_all(int fd, void* to, std::size_t bytes) {
    for (auto* at = static_cast<char*>(to); bytes > 0;) {
        const ssize_t got = read(fd, at, bytes);
        if (got <= 0) return false;
        at += got;
        bytes -= static_cast<std::size_t>(got);
    }
    return true;
}

bool write_all(int fd, const char* from, std::size_t bytes) {
    while (bytes > 0) {
        const ssize_t put = send(fd, from, bytes, MSG_NOSIGNAL);
        if (put <= 0) return false;
        from += put;
        bytes -= static_cast<std::size_t>(put);
    }
    return true;
}

// ---- receiver ------------------------------------------------------------------------------

void take_stream(int fd, std::vector<char>& buffer) {
    std::uint64_t total = 0;
    auto told = Clock::now();
    for (;;) {
        const ssize_t got = read(fd, buffer.data(), buffer.size());
        if (got <= 0) return;
        total += static_cast<std::uint64_t>(got);
        const auto now = Clock::now();
        if (now - told < kReport) continue;
        told = now;
        if (send(fd, &total, sizeof total, MSG_NOSIGNAL) != sizeof total) return;
    }
}

void take_requests(int fd, std::vector<char>& buffer, std::uint32_t bytes) {
    buffer.resize(bytes);
    while (read_all(fd, buffer.data(), bytes))
        for (std::uint64_t i = 0; i < kAnswers; ++i)
            if (!write_all(fd, "!", 1)) return;
}

void serve_one(int fd) {
    std::vector<char> buffer(1 << 20);
    Greeting greeting{};
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (read_all(fd, &greeting, sizeof greeting) && greeting.request_bytes <= buffer.size()) {
        if (greeting.request_bytes == 0) take_stream(fd, buffer);
        else take_requests(fd, buffer, greeting.request_bytes);
    }
    close(fd);
}

[[noreturn]] void serve(int port) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    const int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) fail("bind");
    if (listen(listener, 128) < 0) fail("listen");
    std::printf("ready\n");
    std::fflush(stdout);
    for (;;)
        if (const int fd = accept(listener, nullptr, nullptr); fd >= 0)
            std::thread(serve_one, fd).detach();
}

// ---- sender --------------------------------------------------------------------------------

int open_connection(const Options& options) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (options.congestion != nullptr &&
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, options.congestion,
                   static_cast<socklen_t>(std::strlen(options.congestion))) < 0)
        fail("TCP_CONGESTION");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(options.port));
    inet_pton(AF_INET, options.address, &address.sin_addr);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) fail("connect");
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const Greeting greeting{options.requests ? options.request_bytes : 0};
    if (!write_all(fd, reinterpret_cast<const char*>(&greeting), sizeof greeting)) fail("greeting");
    return fd;
}

void reset(int fd) {
    const linger now{1, 0};  // what waits in the sender's buffer is of no interest any longer
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

void send_stream(const Options& options) {
    const int fd = open_connection(options);
    const auto begun = Clock::now();
    const auto end = begun + std::chrono::duration_cast<Clock::duration>(Seconds(options.seconds));
    std::thread feeder([fd] {
        const std::vector<char> piece(kPiece, 'x');
        while (send(fd, piece.data(), piece.size(), MSG_NOSIGNAL) > 0) {}
    });
    std::uint64_t arrived = 0, total = 0;
    auto told = begun;
    while (told < end && read_all(fd, &total, sizeof total)) {
        arrived = total;
        told = Clock::now();
    }
    const double seconds = std::max(Seconds(told - begun).count(), 1e-6);
    std::printf("{\"mbit_per_s\": %.3f, \"seconds\": %.3f}\n",
                static_cast<double>(arrived) * 8e-6 / seconds, seconds);
    std::fflush(stdout);
    shutdown(fd, SHUT_RDWR);
    _exit(0);  // the feeder may be blocked for as long as the network takes
}

/// Until so many bytes have come in all; takes what is there.
bool wait_for(int fd, std::uint64_t& total, std::uint64_t bytes) {
    char room[64];
    while (total < bytes) {
        const ssize_t got = read(fd, room, sizeof room);
        if (got <= 0) return false;
        total += static_cast<std::uint64_t>(got);
    }
    return true;
}

void send_requests(const Options& options) {
    std::vector<std::vector<double>> times(static_cast<std::size_t>(options.connections));
    std::vector<std::thread> threads;
    const auto end =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(options.seconds));
    for (std::vector<double>& mine : times)
        threads.emplace_back([&options, &mine, end] {
            const int fd = open_connection(options);
            const std::vector<char> request(options.request_bytes, 'x');
            std::uint64_t answers = 0;
            for (std::uint64_t sent = 0; Clock::now() < end; ++sent) {
                const auto begun = Clock::now();
                if (!write_all(fd, request.data(), request.size()) ||
                    !wait_for(fd, answers, sent * kAnswers + 1))
                    break;
                mine.push_back(Seconds(Clock::now() - begun).count() * 1e6);
            }
            reset(fd);
        });
    for (std::thread& thread : threads) thread.join();
    std::vector<double> all;
    for (const auto& mine : times) all.insert(all.end(), mine.begin(), mine.end());
    if (all.empty()) all.push_back(options.seconds * 1e6);
    std::ranges::sort(all);
    const auto at = [&all](double share) {
        return all[std::min(all.size() - 1,
                            static_cast<std::size_t>(share * static_cast<double>(all.size())))];
    };
    std::printf("{\"requests\": %zu, \"p50_us\": %.0f, \"p99_us\": %.0f, \"p999_us\": %.0f}\n",
                all.size(), at(0.5), at(0.99), at(0.999));
}

bool read_options(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view name = argv[i];
        if (i + 1 >= argc) return false;
        const char* value = argv[++i];
        if (name == "--serve") options.serve = std::atoi(value);
        else if (name == "--mode") options.requests = std::string_view(value) == "requests";
        else if (name == "--seconds") options.seconds = std::atof(value);
        else if (name == "--connections") options.connections = std::atoi(value);
        else if (name == "--request-bytes")
            options.request_bytes = static_cast<std::uint32_t>(std::atoi(value));
        else if (name == "--congestion") options.congestion = value;
        else if (name == "--to" && i + 1 < argc) {
            options.address = value;
            options.port = std::atoi(argv[++i]);
        } else return false;
    }
    return options.serve != 0 || options.address != nullptr;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (!read_options(argc, argv, options)) {
        std::fprintf(stderr, "bench_transfer: see the head of test/bench/transfer.cpp\n");
        return 2;
    }
    if (options.serve != 0) serve(options.serve);
    if (options.requests) send_requests(options);
    else send_stream(options);
    return 0;
}
