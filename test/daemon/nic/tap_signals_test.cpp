// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/open_fds.hpp"
#include "daemon/nic/tap_signals.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

using namespace chiru::daemon::nic;

TEST_CASE("A signal that a driver took meanwhile is ignored afterwards", "[nic]") {
    const int signal = SIGRTMIN + 5;
    {
        const TapSignalsBlocked guard;
        struct sigaction action {};
        action.sa_handler = [](int) {};
        sigaction(signal, &action, nullptr);
        kill(getpid(), signal);  // pending
    }
    struct sigaction now {};
    sigaction(signal, nullptr, &now);
    CHECK(now.sa_handler == SIG_IGN);
    now.sa_handler = SIG_DFL;
    sigaction(signal, &now, nullptr);
}

TEST_CASE("Signals are turned off on a descriptor that sends them", "[nic]") {
    std::array<int, 2> pair{};
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) == 0);
    fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK);
    silence_tap(pair[0]);
    CHECK((fcntl(pair[0], F_GETFL) & (O_ASYNC | O_NONBLOCK)) == O_NONBLOCK);
    close(pair[0]);
    close(pair[1]);
}

TEST_CASE("New descriptors are seen, but only sockets and taps that carry frames count", "[nic]") {
    const auto before = open_fds();
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const auto after = open_fds();
    CHECK(after.size() == before.size() + 1);
    CHECK(after.contains(fd));
    CHECK(frame_fds(before, after).empty());
    close(fd);
}
