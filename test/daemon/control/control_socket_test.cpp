// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/control_socket.hpp"

#include "daemon/control/pending.hpp"
#include "daemon/control/shard_watch.hpp"
#include "daemon/session/credentials.hpp"
#include "daemon/telemetry/rate_limit.hpp"
#include "shm/control.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

namespace fs = std::filesystem;
using namespace chiru;
using namespace chiru::daemon;
using namespace std::chrono_literals;

namespace {

class Folder {
public:
    Folder() {
        char name[] = "/tmp/chiru-control-test-XXXXXX";
        path_ = mkdtemp(name);
    }
    ~Folder() { fs::remove_all(path_); }
    std::string operator/(const char* name) const { return path_ + "/" + name; }

private:
    std::string path_;
};

/// What a daemon that was killed leaves behind.
void leave_stale_socket(const std::string& path) {
    const shm::UniqueFd dead(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    REQUIRE(bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
}

}  // namespace

TEST_CASE("The control socket appears with its folder, and both go with it", "[control]") {
    const Folder folder;
    const std::string path = folder / "made/control.sock";
    {
        const auto made = ControlSocket::open(path, {.mode = 0660, .group = {}});
        REQUIRE(made);
        struct stat status {};
        REQUIRE(stat(path.c_str(), &status) == 0);
        CHECK((status.st_mode & 0777) == 0660);
        CHECK(shm::connect_control(path));
    }
    CHECK_FALSE(fs::exists(folder / "made"));
}

TEST_CASE("A dead daemon's socket is replaced, a living one's is not", "[control]") {
    const Folder folder;
    const std::string path = folder / "control.sock";
    leave_stale_socket(path);
    const auto first = ControlSocket::open(path, {});
    REQUIRE(first);
    const auto second = ControlSocket::open(path, {});
    REQUIRE_FALSE(second);
    CHECK(second.error().starts_with("another chirud (pid " + std::to_string(getpid()) +
                                     ") serves " + path));
    CHECK(shm::connect_control(path));
}

TEST_CASE("What is no socket is left alone", "[control]") {
    const Folder folder;
    const std::string path = folder / "notes.txt";
    std::ofstream(path) << "mine";
    const auto made = ControlSocket::open(path, {});
    REQUIRE_FALSE(made);
    CHECK(made.error().starts_with(path + " is there and is not a socket"));
    CHECK(fs::file_size(path) == 4);
}

TEST_CASE("The peer is known by what the kernel says", "[control]") {
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    const shm::UniqueFd ours(pair[0]);
    const shm::UniqueFd theirs(pair[1]);
    const auto peer = peer_credentials(ours.get());
    REQUIRE(peer);
    CHECK(peer->pid == getpid());
    CHECK(peer->uid == geteuid());
    CHECK(peer->in_group(getegid()));
    CHECK_FALSE(peer->in_group(4'000'000'000u));
}

TEST_CASE("A folder that somebody holds locked is named, and not waited for", "[control]") {
    const Folder folder;
    fs::create_directory(folder / "run");
    const shm::UniqueFd held(::open((folder / "run").c_str(), O_RDONLY | O_DIRECTORY));
    REQUIRE(flock(held.get(), LOCK_EX) == 0);
    const auto made = ControlSocket::open(folder / "run/control.sock", {.mode = 0660, .group = {}});
    REQUIRE_FALSE(made);
    CHECK(made.error().find("another process holds a lock on " + (folder / "run")) == 0);
}

TEST_CASE("An order is done when every shard has reported", "[control]") {
    Pending pending;
    int done = 0;
    const std::uint64_t tag = pending.expect(2, [&](const Report& last) {
        CHECK(last.shard == 1);
        ++done;
    });
    pending.answered({.shard = 0, .tag = tag, .what = Done{}});
    pending.answered({.shard = 0, .tag = tag + 1, .what = Done{}});  // nobody's
    CHECK(done == 0);
    pending.answered({.shard = 1, .tag = tag, .what = Done{}});
    CHECK(done == 1);
    CHECK(pending.size() == 0);
}

TEST_CASE("A shard that is awake and does not turn is stuck; a sleeping one is not", "[control]") {
    shm::ShardPage page;
    const Instant now{100s};
    CHECK_FALSE(is_stuck(page, now));  // it has not begun
    page.alive_us = Micros(99s).count();
    CHECK_FALSE(is_stuck(page, now));
    page.alive_us = Micros(90s).count();
    CHECK(is_stuck(page, now));
    page.doorbell.epoch = 3;
    CHECK_FALSE(is_stuck(page, now));
}

TEST_CASE("Messages beyond the limit are counted and told of later", "[control]") {
    RateLimit limit(3, 100ms);
    const Instant start{10s};
    for (int i = 0; i < 3; ++i) CHECK(limit.allow(start));
    CHECK_FALSE(limit.allow(start));
    CHECK_FALSE(limit.allow(start + 50ms));
    CHECK(limit.allow(start + 100ms));
    CHECK(limit.take_left_out() == 2);
    CHECK(limit.take_left_out() == 0);
    CHECK_FALSE(limit.allow(start + 150ms));
    CHECK(limit.allow(start + 10s));
}
