// SPDX-License-Identifier: Apache-2.0
#include "test/script/wire.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

namespace chiru::script {

namespace {

constexpr Micros kPatience = std::chrono::seconds(20);  // for a puppet's answer, or an echo
constexpr std::uint16_t kPortsOfScript = 8;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

Instant at(const timespec& time) {
    return Instant{Micros(std::int64_t{time.tv_sec} * 1'000'000 + time.tv_nsec / 1000)};
}

int open_socket(const std::string& interface) {
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("packet socket");
    const int on = 1, room = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) != 0)
        fail("options of the packet socket");
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex(interface.c_str()));
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        fail(interface.c_str());
    return fd;
}

/// The kernel takes VLAN tags off; back to how the frame was.
void restore_tag(Frame& frame, const tpacket_auxdata& aux) {
    if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0 || frame.size() < 14) return;
    const Frame tag{std::byte{0x81}, std::byte{0}, static_cast<std::byte>(aux.tp_vlan_tci >> 8),
                    static_cast<std::byte>(aux.tp_vlan_tci)};
    frame.insert(frame.begin() + 12, tag.begin(), tag.end());
}

}  // namespace

// ---- the puppet ----------------------------------------------------------------------------

Puppet::Puppet(const std::vector<std::string>& command) {
    std::array<int, 2> in{}, out{};
    if (pipe2(in.data(), O_CLOEXEC) != 0 || pipe2(out.data(), O_CLOEXEC) != 0) fail("pipe");
    pid_ = fork();
    if (pid_ < 0) fail("fork");
    if (pid_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        std::vector<char*> words;
        for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
        words.push_back(nullptr);
        execvp(words[0], words.data());
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    to_ = in[1];
    from_ = out[0];
    fcntl(from_, F_SETFL, O_NONBLOCK);
}

Puppet::~Puppet() {
    close(to_);
    close(from_);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
}

void Puppet::tell(const std::string& line) {
    const std::string whole = line + "\n";
    if (write(to_, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size()))
        fail("the puppet does not listen");
}

std::optional<std::string> Puppet::answer() {
    std::array<char, 512> some;
    for (ssize_t n; (n = read(from_, some.data(), some.size())) != -1 || errno == EINTR;) {
        if (n == 0) throw std::runtime_error("the puppet ended");
        if (n > 0) said_.append(some.data(), static_cast<std::size_t>(n));
    }
    const std::size_t end = said_.find('\n');
    if (end == std::string::npos) return std::nullopt;
    std::string line = said_.substr(0, end);
    said_.erase(0, end + 1);
    return line;
}

// ---- the wire ------------------------------------------------------------------------------

WireTarget::WireTarget(const Stage& stage)
    : stage_(stage), socket_(open_socket(stage.interface)), puppet_(stage.puppet) {
    if (std::string said = call({"ready"}, 0); !said.empty())
        throw std::runtime_error("the puppet: " + said);
}

WireTarget::~WireTarget() { close(socket_); }

Tolerance WireTarget::tolerance() const {
    using std::chrono::milliseconds;
    return {milliseconds(400), milliseconds(15), milliseconds(400), 0.15, milliseconds(30)};
}

Instant WireTarget::now() {
    timespec time{};
    clock_gettime(CLOCK_REALTIME, &time);
    return at(time);
}

void WireTarget::inject(const Frame& frame) {
    settled_ = false;
    put(frame);
}

void WireTarget::put(const Frame& frame) {
    if (send(socket_, frame.data(), frame.size(), 0) != static_cast<ssize_t>(frame.size()))
        fail("send");
}

std::optional<Arrived> WireTarget::receive() {
    Arrived arrived{now(), Frame(65'536)};
    alignas(cmsghdr) std::array<std::byte, 256> control;
    sockaddr_ll from{};
    iovec io{arrived.frame.data(), arrived.frame.size()};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t bytes = recvmsg(socket_, &message, 0);
    if (bytes < 0) {
        if (errno == EAGAIN || errno == EINTR) return std::nullopt;
        fail("recvmsg");
    }
    arrived.frame.resize(static_cast<std::size_t>(bytes));
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            timespec time{};
            std::memcpy(&time, CMSG_DATA(c), sizeof time);
            arrived.at = at(time);
        } else if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) {
            tpacket_auxdata aux{};
            std::memcpy(&aux, CMSG_DATA(c), sizeof aux);
            restore_tag(arrived.frame, aux);
        }
    }
    if (from.sll_pkttype == PACKET_OUTGOING) arrived.frame.clear();
    return arrived;
}

void WireTarget::drain() {
    while (auto arrived = receive()) {
        if (arrived->frame.empty()) continue;
        if (const auto answer = neighbor_answer(arrived->frame, stage_.ends)) {
            put(*answer);
            continue;
        }
        if (answers_echo(arrived->frame, stage_.ends)) settled_ = true;
        const auto heard = heard_in(arrived->frame, stage_.ends);
        if (heard && heard->peer_port >= stage_.peer_port &&
            heard->peer_port < stage_.peer_port + kPortsOfScript)
            queue_.push_back(std::move(*arrived));
    }
}

std::optional<Arrived> WireTarget::next_frame(Instant deadline) {
    for (;;) {
        drain();
        if (!queue_.empty()) {
            if (queue_.front().at > deadline) return std::nullopt;
            Arrived oldest = std::move(queue_.front());
            queue_.pop_front();
            return oldest;
        }
        const Micros left = deadline - now();
        if (left <= Micros(0)) return std::nullopt;
        pollfd wait{socket_, POLLIN, 0};
        const timespec time{left.count() / 1'000'000, left.count() % 1'000'000 * 1000};
        ppoll(&wait, 1, &time, nullptr);
    }
}

bool WireTarget::settle() {
    if (settled_) return true;
    put(echo_request(stage_.ends));
    for (const Instant deadline = now() + kPatience; !settled_ && now() < deadline; drain()) {
        pollfd wait{socket_, POLLIN, 0};
        poll(&wait, 1, 100);
    }
    return settled_;
}

std::string WireTarget::call(const std::vector<std::string>& words, std::uint16_t peer_port) {
    std::string line;
    for (const std::string& word : words) line += (line.empty() ? "" : " ") + word;
    if (words[0] == "listen")
        line = "listen " + stage_.ends.stack.to_string() + " " + std::to_string(listen_port());
    if (words[0] == "connect")
        line = "connect " + stage_.ends.peer.to_string() + " " + std::to_string(peer_port);
    if (!settle()) return "what was sent was not taken: no answer to an echo request";
    puppet_.tell(line);
    const Instant deadline = now() + kPatience;
    for (;;) {
        if (auto answer = puppet_.answer()) return *answer;
        if (now() > deadline) return "the puppet does not answer";
        drain();
        std::array<pollfd, 2> wait{{{socket_, POLLIN, 0}, {puppet_.answers(), POLLIN, 0}}};
        poll(wait.data(), wait.size(), 100);
    }
}

}  // namespace chiru::script
