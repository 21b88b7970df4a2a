// SPDX-License-Identifier: Apache-2.0
//
// The program on the host under test: obeys the socket calls of packet scripts, a line each, and
// prints an empty line, or what happened instead. Plain POSIX, so it runs on the kernel, and on
// chirud under `chiru`.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr int kPatienceMs = 1000;

struct Socket {
    int fd = -1;
    std::uint64_t read = 0;
    std::uint64_t written = 0;
};

using Words = std::vector<std::string>;

unsigned char text_byte(std::uint64_t offset) { return static_cast<unsigned char>(offset % 251); }

std::string error_name(int error) { return strerrorname_np(error); }

std::string told(const std::string& expected, const std::string& got) {
    return expected == got ? "" : "got " + got;
}

/// Waits until `events` or an end of patience; with none, only looks.
bool ready(int fd, short events, bool patient) {
    pollfd wait{fd, events, 0};
    return poll(&wait, 1, patient ? kPatienceMs : 0) > 0;
}

socklen_t address_of(const Words& words, sockaddr_storage& storage) {
    storage = {};
    const auto port = htons(static_cast<std::uint16_t>(std::stoul(words.at(2))));
    auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
    if (inet_pton(AF_INET, words.at(1).c_str(), &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = port;
        return sizeof(sockaddr_in);
    }
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
    inet_pton(AF_INET6, words.at(1).c_str(), &v6->sin6_addr);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = port;
    return sizeof(sockaddr_in6);
}

class Program {
public:
    std::string obey(const Words& words);

private:
    std::string listen_on(const Words& words);
    std::string connect_to(const Words& words);
    std::string accept_one(const std::string& result);
    std::string connected(const std::string& result);
    std::string send_text(const Words& words);
    std::string receive(const std::string& result);
    std::string set_option(const Words& words);
    /// Options that were set before there was a socket.
    void apply_wishes(int fd);
    int set_on(int fd, const std::string& name, int value);
    Socket& current() { return sockets_.at(current_); }

    int listener_ = -1;
    std::vector<Socket> sockets_;
    std::size_t current_ = 0;
    std::vector<std::pair<std::string, int>> wishes_;
};

std::string Program::listen_on(const Words& words) {
    sockaddr_storage address;
    const socklen_t bytes = address_of(words, address);
    const int on = 1;
    listener_ = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    apply_wishes(listener_);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), bytes) != 0 ||
        listen(listener_, 16) != 0)
        return error_name(errno);
    return {};
}

std::string Program::connect_to(const Words& words) {
    sockaddr_storage address;
    const socklen_t bytes = address_of(words, address);
    Socket s;
    s.fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    apply_wishes(s.fd);
    sockets_.push_back(s);
    current_ = sockets_.size() - 1;
    if (connect(s.fd, reinterpret_cast<sockaddr*>(&address), bytes) == 0 || errno == EINPROGRESS)
        return {};
    return error_name(errno);
}

std::string Program::accept_one(const std::string& result) {
    if (!ready(listener_, POLLIN, result != "none")) return told(result, "none");
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
    if (fd < 0) return told(result, errno == EAGAIN ? "none" : error_name(errno));
    sockets_.push_back({fd});
    current_ = sockets_.size() - 1;
    return told(result, "yes");
}

std::string Program::connected(const std::string& result) {
    const int fd = current().fd;
    if (!ready(fd, POLLOUT, result != "none")) return told(result, "none");
    int error = 0;
    socklen_t bytes = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    return told(result, error == 0 ? "yes" : error_name(error));
}

std::string Program::send_text(const Words& words) {
    Socket& s = current();
    const bool fails = words.at(1)[0] == 'E';
    std::string text(fails ? 1 : std::stoul(words[1]), '\0');
    for (char& ch : text) ch = static_cast<char>(text_byte(s.written++));
    const int more = words.size() > 2 && words[2] == "more" ? MSG_MORE : 0;
    const ssize_t sent = send(s.fd, text.data(), text.size(), MSG_NOSIGNAL | more);
    return told(words[1], sent < 0 ? error_name(errno) : std::to_string(sent));
}

std::string Program::receive(const std::string& result) {
    Socket& s = current();
    const bool bytes = result[0] >= '0' && result[0] <= '9';
    std::size_t wanted = bytes ? std::stoul(result) : 1;
    for (std::size_t done = 0; done < wanted;) {
        std::array<char, 65'536> some;
        ready(s.fd, POLLIN, result != "none");
        const ssize_t n = recv(s.fd, some.data(), std::min(some.size(), wanted - done), 0);
        if (n < 0) return told(result, errno == EAGAIN ? "none" : error_name(errno));
        if (n == 0) return told(result, "end");
        for (ssize_t i = 0; i < n; ++i)
            if (static_cast<unsigned char>(some[static_cast<std::size_t>(i)]) !=
                text_byte(s.read++))
                return "wrong text at " + std::to_string(s.read - 1);
        done += static_cast<std::size_t>(n);
        if (!bytes) return "got text";
    }
    return {};
}

int Program::set_on(int fd, const std::string& name, int value) {
    const auto tcp = [&](int option) {
        return setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value);
    };
    if (name == "nodelay") return tcp(TCP_NODELAY);
    if (name == "cork") return tcp(TCP_CORK);
    if (name == "quickack") return tcp(TCP_QUICKACK);
    if (name == "keep_idle") return tcp(TCP_KEEPIDLE);
    if (name == "keep_interval") return tcp(TCP_KEEPINTVL);
    if (name == "keep_count") return tcp(TCP_KEEPCNT);
    if (name == "user_timeout") return tcp(TCP_USER_TIMEOUT);
    if (name == "max_segment") return tcp(TCP_MAXSEG);
    if (name == "fast_open") return tcp(TCP_FASTOPEN);
    if (name == "fast_open_connect") return tcp(TCP_FASTOPEN_CONNECT);
    if (name == "keepalive")
        return setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value);
    if (name == "receive_buffer")
        return setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, sizeof value);
    if (name == "linger_zero") {
        const linger at_once{value, 0};
        return setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    errno = ENOPROTOOPT;
    return -1;
}

void Program::apply_wishes(int fd) {
    for (const auto& [name, value] : wishes_) set_on(fd, name, value);
}

std::string Program::set_option(const Words& words) {
    const int value = std::stoi(words.at(2));
    if (sockets_.empty() || words[1].starts_with("fast_open")) {
        wishes_.emplace_back(words[1], value);
        if (listener_ >= 0) set_on(listener_, words[1], value);
        return {};
    }
    return set_on(current().fd, words[1], value) == 0 ? "" : error_name(errno);
}

std::string Program::obey(const Words& words) {
    const std::string& what = words.at(0);
    const std::string result = words.size() > 1 ? words[1] : "yes";
    if (what == "ready") return {};
    if (what == "listen") return listen_on(words);
    if (what == "connect") return connect_to(words);
    if (what == "accept") return accept_one(result);
    if (what == "connected") return connected(result);
    if (what == "send") return send_text(words);
    if (what == "recv") return receive(result);
    if (what == "option") return set_option(words);
    if (what == "use") {
        current_ = std::stoul(result) - 1;
        return {};
    }
    if (what == "shutdown") return shutdown(current().fd, SHUT_WR) == 0 ? "" : error_name(errno);
    if (what == "abort") set_on(current().fd, "linger_zero", 1);
    if (what == "close" || what == "abort")
        return close(current().fd) == 0 ? "" : error_name(errno);
    return "'" + what + "' is no call";
}

}  // namespace

int main() {
    Program program;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream stream(line);
        Words words;
        for (std::string word; stream >> word;) words.push_back(word);
        std::string answer;
        try {
            answer = program.obey(words);
        } catch (const std::exception& error) {
            answer = std::string("the line is wrong: ") + error.what();
        }
        std::cout << answer << std::endl;
    }
}
