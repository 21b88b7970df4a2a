// SPDX-License-Identifier: Apache-2.0
//
// A control server in a thread of its own, with real sockets and memory and no data plane, for as
// long as this object lives.
#pragma once

#include "daemon/control/server.hpp"
#include "test/daemon/control/fake_plane.hpp"

#include <fcntl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

namespace chiru::test {

class RunningServer {
public:
    explicit RunningServer(std::uint32_t max_sessions = 4) {
        std::signal(SIGPIPE, SIG_IGN);
        char name[] = "/tmp/chiru-server-test-XXXXXX";
        folder_ = mkdtemp(name);
        config_.sessions.tx_arena_bytes = 1u << 20;
        config_.sessions.max_sessions = max_sessions;
        config_.sessions.max_channels = 2;
        config_.control.socket = folder_ + "/control.sock";
        socket_.emplace(std::move(*daemon::ControlSocket::open(config_.control.socket, {})));
        page_.emplace(std::move(*daemon::DirectoryPage::make(config_, "test")));
        publish_address();
        page_->open(kShards, kRxSlots * kRxSlotBytes, kRxSlotBytes);
        // The server takes its signals from a descriptor: here, one end of a pipe.
        if (pipe2(signals_, O_NONBLOCK | O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
        server_.emplace(config_, plane_, *page_, *socket_, signals_[0]);
        thread_ = std::thread([this] { served_ = server_->run().has_value(); });
    }
    ~RunningServer() {
        signalfd_siginfo stop{};
        stop.ssi_signo = SIGTERM;
        must(write(signals_[1], &stop, sizeof stop) == sizeof stop);
        thread_.join();
        must(served_);
        server_.reset();
        socket_.reset();
        must(rmdir(folder_.c_str()) == 0);  // nothing is left in it
        close(signals_[0]);
        close(signals_[1]);
    }
    RunningServer(const RunningServer&) = delete;
    RunningServer& operator=(const RunningServer&) = delete;

    const std::string& path() const { return config_.control.socket; }
    shm::Directory& directory() { return page_->directory(); }
    std::size_t sessions() {
        std::size_t count = 0;
        for (const auto& record : directory().sessions)
            if (record.read().id != 0) ++count;
        return count;
    }
    std::size_t channels() {
        std::size_t count = 0;
        for (const auto& record : directory().channels)
            if (record.read().session != 0) ++count;
        return count;
    }

private:
    static void must(bool holds) {
        if (!holds) std::abort();
    }
    void publish_address() {
        shm::InterfaceInfo info;
        info.in_use = 1;
        info.address_count = 1;
        info.addresses[0].prefix = *IpPrefix::parse("10.7.0.2/24");
        info.addresses[0].state = shm::AddressState::Preferred;
        page_->directory().interfaces[0].publish(info);
    }

    std::string folder_;
    daemon::Config config_;
    daemon::DataPlane plane_;
    std::optional<daemon::ControlSocket> socket_;
    std::optional<daemon::DirectoryPage> page_;
    int signals_[2] = {-1, -1};
    std::optional<daemon::Server> server_;
    std::thread thread_;
    bool served_ = false;
};

}  // namespace chiru::test
