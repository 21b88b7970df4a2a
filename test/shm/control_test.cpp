// SPDX-License-Identifier: Apache-2.0
#include "shm/control.hpp"

#include <catch2/catch.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

using namespace chiru;
using namespace chiru::shm;

namespace {

struct Pair {
    Pair() {
        int ends[2];
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        near.reset(ends[0]);
        far.reset(ends[1]);
    }
    UniqueFd near;
    UniqueFd far;
};

std::size_t open_descriptors() {
    DIR* folder = opendir("/proc/self/fd");
    std::size_t count = 0;
    while (readdir(folder) != nullptr) ++count;
    closedir(folder);
    return count;
}

ino_t inode(int fd) {
    struct stat status {};
    REQUIRE(fstat(fd, &status) == 0);
    return status.st_ino;
}

/// Sends raw bytes with descriptors, as a hostile peer would.
void send_raw(int socket, const void* bytes, std::size_t count, const std::vector<int>& fds) {
    iovec payload{const_cast<void*>(bytes), count};
    std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
    msghdr header{};
    header.msg_iov = &payload;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
        header.msg_control = control.data();
        header.msg_controllen = control.size();
        cmsghdr* rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
        std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
    }
    REQUIRE(sendmsg(socket, &header, MSG_NOSIGNAL) == static_cast<ssize_t>(count));
}

}  // namespace

TEST_CASE("a message arrives as it was sent", "[shm]") {
    const Pair pair;
    Message message;
    message.type = MessageType::Bind;
    message.sequence = 77;
    message.error = -3;
    message.bind = BindRequest{{*IpAddress::parse("fd07::2"), 8080}, kBindReusePort};
    REQUIRE(send_message(pair.near.get(), message) == 0);

    const Result<Parcel, int> got = receive_message(pair.far.get());
    REQUIRE(got);
    CHECK(got->message.type == MessageType::Bind);
    CHECK(got->message.sequence == 77);
    CHECK(got->message.error == -3);
    CHECK(got->message.bind.endpoint.to_string() == "[fd07::2]:8080");
    CHECK(got->message.bind.flags == kBindReusePort);
    CHECK(got->fds.empty());
}

TEST_CASE("descriptors come along, close on exec, and in order", "[shm]") {
    const Pair pair;
    std::vector<UniqueFd> sent;
    std::vector<int> numbers;
    for (std::size_t i = 0; i < kMaxMessageFds; ++i) {
        sent.emplace_back(memfd_create("chiru-test", MFD_CLOEXEC));
        numbers.push_back(sent.back().get());
    }
    REQUIRE(send_message(pair.near.get(), Message(), numbers) == 0);
    const Result<Parcel, int> got = receive_message(pair.far.get());
    REQUIRE(got);
    REQUIRE(got->fds.size() == kMaxMessageFds);
    for (std::size_t i = 0; i < kMaxMessageFds; ++i) {
        CHECK(inode(got->fds[i].get()) == inode(numbers[i]));
        CHECK((fcntl(got->fds[i].get(), F_GETFD) & FD_CLOEXEC) != 0);
    }
    numbers.push_back(numbers[0]);
    CHECK(send_message(pair.near.get(), Message(), numbers) == EINVAL);
}

TEST_CASE("what is no message is refused, and its descriptors are closed", "[shm][hostile]") {
    const Pair pair;
    const UniqueFd extra(eventfd(0, EFD_CLOEXEC));
    const std::size_t before = open_descriptors();
    std::array<char, sizeof(Message) + 100> bytes{};

    for (const std::size_t length : {std::size_t{1}, sizeof(Message) - 1, sizeof(Message) + 1,
                                     bytes.size()}) {
        send_raw(pair.near.get(), bytes.data(), length, {extra.get(), extra.get()});
        const Result<Parcel, int> got = receive_message(pair.far.get());
        REQUIRE_FALSE(got);
        CHECK(got.error() == EPROTO);
    }
    Message other_version;
    other_version.version = kControlVersion + 1;
    REQUIRE(send_message(pair.near.get(), other_version, {extra.get()}) == 0);
    CHECK(receive_message(pair.far.get()).error() == EPROTO);
    CHECK(open_descriptors() == before);
}

TEST_CASE("more descriptors than a message may carry are refused and closed", "[shm][hostile]") {
    const Pair pair;
    const UniqueFd extra(eventfd(0, EFD_CLOEXEC));
    const std::size_t before = open_descriptors();
    const Message message;
    send_raw(pair.near.get(), &message, sizeof message,
             std::vector<int>(kMaxMessageFds + 20, extra.get()));
    const Result<Parcel, int> got = receive_message(pair.far.get());
    REQUIRE_FALSE(got);
    CHECK(got.error() == EPROTO);
    CHECK(open_descriptors() == before);
}

TEST_CASE("the end of either side shows as EPIPE, without a signal", "[shm]") {
    Pair pair;
    pair.far.reset();
    CHECK(send_message(pair.near.get(), Message()) == EPIPE);
    CHECK(receive_message(pair.near.get()).error() == EPIPE);
}

TEST_CASE("an unread message of a peer that is gone still arrives before the end", "[shm]") {
    Pair pair;
    Message message;
    message.sequence = 5;
    REQUIRE(send_message(pair.near.get(), message) == 0);
    pair.near.reset();
    const Result<Parcel, int> got = receive_message(pair.far.get());
    REQUIRE(got);
    CHECK(got->message.sequence == 5);
    CHECK(receive_message(pair.far.get()).error() == EPIPE);
}

TEST_CASE("a non-blocking socket says EAGAIN instead of waiting", "[shm]") {
    const Pair pair;
    REQUIRE(fcntl(pair.near.get(), F_SETFL, O_NONBLOCK) == 0);
    CHECK(receive_message(pair.near.get()).error() == EAGAIN);
    int error = 0;
    for (int i = 0; i < 10'000 && error == 0; ++i) error = send_message(pair.near.get(), Message());
    CHECK(error == EAGAIN);
}

TEST_CASE("connecting says why it failed", "[shm]") {
    CHECK(connect_control("/nonexistent/chiru.sock").error() == ENOENT);
    CHECK(connect_control(std::string(200, 'x')).error() == ENAMETOOLONG);
}

TEST_CASE("the socket is what was given, else the environment's, else the default", "[shm]") {
    unsetenv("CHIRU_SOCKET");
    CHECK(control_socket_path() == kDefaultControlSocket);
    setenv("CHIRU_SOCKET", "/tmp/other.sock", 1);
    CHECK(control_socket_path() == "/tmp/other.sock");
    CHECK(control_socket_path("/tmp/mine.sock") == "/tmp/mine.sock");
    setenv("CHIRU_SOCKET", "", 1);
    CHECK(control_socket_path() == kDefaultControlSocket);
    unsetenv("CHIRU_SOCKET");
}
