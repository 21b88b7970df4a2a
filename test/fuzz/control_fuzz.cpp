// SPDX-License-Identifier: Apache-2.0
//
// Up to four clients of the control socket, who may send anything. Input is a list of operations:
// a byte whose low bits choose the client and whose high bits say what it does:
//
//   0-13  a request of that type; then a byte: how many of the following bytes replace its body
//   14    a message as it comes: two bytes of length, and the bytes
//   15    goes away, and comes back
//
// Holds: the server answers or drops, each client apart from the others, and goes on; when all are
// gone it holds no session and no channel.
#include "shm/control.hpp"
#include "test/daemon/control/running_server.hpp"
#include "test/fuzz/input.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

using namespace chiru;
using fuzz::Input;
using fuzz::must;
using shm::MessageType;

namespace {

constexpr int kOperations = 100;
constexpr Micros kPatience = std::chrono::seconds(5);  // of a client for its answer

/// One for all inputs: none may leave anything behind.
test::RunningServer& server() {
    static test::RunningServer running;
    return running;
}

class Client {
public:
    void request(std::uint8_t type, Input& input) {
        shm::Message message = likely(static_cast<MessageType>(type));
        message.sequence = ++sequence_;
        const auto body = input.bytes(input.byte());
        std::ranges::copy(body, message.raw.begin());
        if (shm::send_message(connected(), message) != 0) return leave();
        if (message.type == MessageType::Farewell) hear_of_observing();
        else hear();
    }

    void say(Input& input) {
        const auto bytes = input.bytes(input.word() % 1024u);
        if (send(connected(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) return leave();
        hear_of_observing();
    }

    void leave() { socket_.reset(); }

private:
    int connected() {
        if (!socket_) {
            auto socket = shm::connect_control(server().path(), kPatience);
            must(socket.has_value(), "the server takes no connections any longer");
            socket_ = std::move(*socket);
        }
        return socket_.get();
    }

    void hear() {
        const auto answer = shm::receive_message(socket_.get());
        if (!answer) {
            must(answer.error() == EPIPE, "a request was neither answered nor refused");
            return leave();
        }
        const shm::Message& m = answer->message;
        must(m.sequence == sequence_, "an answer to something else");
        if (m.error != 0) return;
        if (m.type == MessageType::CreateChannel) channel_ = m.channel.channel;
        if (m.type == MessageType::Bind) bound_ = m.bound;
        if (m.type == MessageType::OpenDatagram) datagram_ = m.datagram.socket;
    }

    /// What was said may have an answer, which is of no interest, or none: a later request shows
    /// that the server goes on.
    void hear_of_observing() {
        shm::Message probe = likely(MessageType::Observe);
        probe.sequence = ++sequence_;
        if (shm::send_message(socket_.get(), probe) != 0) return leave();
        for (;;) {
            const auto answer = shm::receive_message(socket_.get());
            if (!answer) {
                must(answer.error() == EPIPE, "a request was neither answered nor refused");
                return leave();
            }
            if (answer->message.sequence == sequence_) return;
        }
    }

    /// What an honest client would ask.
    shm::Message likely(MessageType type) const {
        const Endpoint own{IpAddress::v4(0x0a07'0002), 0};
        shm::Message m;
        m.type = type;
        switch (type) {
        case MessageType::DestroyChannel: m.destroy_channel = {channel_}; break;
        case MessageType::Bind: m.bind = {own, 0}; break;
        case MessageType::Listen: m.listen = {.listener = bound_.listener, .backlog = 5}; break;
        case MessageType::Adopt: m.adopt = {bound_.listener, 0, bound_.token}; break;
        case MessageType::Unbind: m.unbind = {bound_.listener}; break;
        case MessageType::OpenDatagram:
            m.open_datagram = {};
            m.open_datagram.endpoint = own;
            m.open_datagram.channel = channel_;
            break;
        case MessageType::ConnectDatagram:
            m.connect_datagram = {};
            m.connect_datagram.socket = datagram_;
            m.connect_datagram.remote = {IpAddress::v4(0x0a07'0001), 9};
            break;
        case MessageType::CloseDatagram: m.close_datagram = {datagram_}; break;
        case MessageType::Membership:
            m.membership = {};
            m.membership.socket = datagram_;
            m.membership.group = IpAddress::v4(0xef00'0001);
            m.membership.join = 1;
            break;
        default: m.raw = {};
        }
        return m;
    }

    shm::UniqueFd socket_;
    std::uint32_t sequence_ = 0;
    std::uint32_t channel_ = 0;
    shm::BindReply bound_;
    shm::DatagramId datagram_{};
};

/// The daemon hears of a client's end in its next turn.
void must_be_forgotten() {
    for (int tries = 0; server().sessions() + server().channels() > 0; ++tries) {
        must(tries < 50'000, "a session or channel outlives its client");
        usleep(100);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    {
        std::array<Client, 4> clients;
        for (int i = 0; i < kOperations && !input.empty(); ++i) {
            const std::uint8_t op = input.byte();
            Client& client = clients[op & 3];
            if (op >> 4 == 15) client.leave();
            else if (op >> 4 == 14) client.say(input);
            else client.request(static_cast<std::uint8_t>((op >> 4) + 1), input);
        }
    }
    must_be_forgotten();
    test::fake().forget_commands();
    return 0;
}
