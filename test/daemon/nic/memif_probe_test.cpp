// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/memif_probe.hpp"

#include <catch2/catch.hpp>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

using namespace chiru;
using daemon::nic::MemifProbe;

namespace {

/// The server's end, by hand.
class Listener {
public:
    explicit Listener(const std::string& path) : path_(path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
        socket_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        REQUIRE(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
                0);
        REQUIRE(listen(socket_.get(), 1) == 0);
    }
    ~Listener() { unlink(path_.c_str()); }

    void greet() {
        const shm::UniqueFd visitor(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        REQUIRE(send(visitor.get(), "hello", 5, MSG_NOSIGNAL) == 5);
    }

private:
    std::string path_;
    shm::UniqueFd socket_;
};

std::string socket_path() {
    return "/tmp/chiru-probe-" + std::to_string(getpid()) + ".sock";
}

std::string device(const std::string& role) {
    return "net_memif0,role=" + role + ",socket=" + socket_path() + ",socket-abstract=no";
}

}  // namespace

TEST_CASE("Only the client's end of a memif looks for somebody", "[nic]") {
    CHECK(MemifProbe(device("client")).is_client());
    CHECK(MemifProbe("net_memif0,id=0").is_client());
    CHECK_FALSE(MemifProbe(device("server")).is_client());
    CHECK_FALSE(MemifProbe("net_tap0,iface=x").is_client());
}

TEST_CASE("A memif server has answered once it said hello", "[nic]") {
    MemifProbe probe(device("client"));
    CHECK_FALSE(probe.answered());  // there is no socket
    Listener server(socket_path());
    CHECK_FALSE(probe.answered());  // it has not accepted
    server.greet();
    CHECK(probe.answered(std::chrono::seconds(5)));
    CHECK_FALSE(probe.answered());  // the next question needs an answer of its own
    server.greet();
    CHECK(probe.answered(std::chrono::seconds(5)));
}

TEST_CASE("A memif server that hangs, its queue full, blocks nobody", "[nic]") {
    Listener server(socket_path());
    std::vector<MemifProbe> probes;
    for (int i = 0; i < 8; ++i) {
        probes.emplace_back(device("client"));
        CHECK_FALSE(probes.back().answered());
    }
}
