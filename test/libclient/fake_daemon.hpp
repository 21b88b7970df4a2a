// SPDX-License-Identifier: Apache-2.0
//
// The daemon's side of a session and one channel, played by a test: memory, control socket and
// rings are real, what they say is the test's. All in one thread: an answer is queued on the
// control socket before the client asks.
#pragma once

#include "libclient/channel.hpp"
#include "libclient/session.hpp"
#include "shm/channel.hpp"
#include "shm/control.hpp"
#include "shm/directory.hpp"
#include "shm/region.hpp"

#include <catch2/catch.hpp>

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace chiru::test {

inline constexpr std::uint32_t kSlotBytes = 4096;
inline constexpr std::uint32_t kSlots = 640;

class FakeDaemon {
public:
    explicit FakeDaemon(std::uint32_t shards = 1, std::size_t tx_bytes = 1u << 20)
        : shards_(shards) {
        int ends[2];
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        control.reset(ends[0]);
        client_end_.reset(ends[1]);
        using enum shm::PeerAccess;
        directory_region_ = region("directory", sizeof(shm::Directory), ReadOnly);
        rx_region_ = region("rx", std::size_t{kSlotBytes} * kSlots, ReadOnly);
        tx_region_ = region("tx", tx_bytes, ReadWrite);
        channel_region_ = region("channel", shm::Channel::bytes(shards), ReadWrite);
        directory = new (directory_region_.bytes().data()) shm::Directory;
        directory->version = shm::kDirectoryVersion;
        directory->shard_count = shards;
        directory->magic = shm::kDirectoryMagic;
        layout = &shm::Channel::create(channel_region_.bytes(), shards, 7);
        doorbell_ = std::move(*shm::make_client_doorbell());
        for (std::uint32_t i = 0; i < shards; ++i) {
            submissions.emplace_back(layout->lane(i).submissions);
            completions.emplace_back(layout->lane(i).completions);
            shard_doorbells.emplace_back(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
            ringers_.emplace_back(layout->client_doorbell, doorbell_.ring.get());
        }
    }

    /// Queues the answer to the client's next request.
    void answer(const shm::Message& reply, const std::vector<int>& fds = {}) {
        shm::Message message = reply;
        message.sequence = ++sequence_;
        must(shm::send_message(control.get(), message, fds) == 0, "nobody to answer");
    }

    shm::Message attach_reply() const {
        shm::Message message;
        message.type = shm::MessageType::Attach;
        message.attached = {};
        message.attached.session = 1;
        message.attached.shard_count = shards_;
        message.attached.directory_bytes = sizeof(shm::Directory);
        message.attached.rx_arena_bytes = rx_region_.bytes().size();
        message.attached.tx_arena_bytes = tx_region_.bytes().size();
        message.attached.rx_slot_bytes = kSlotBytes;
        return message;
    }
    std::vector<int> attach_fds() const {
        return {directory_region_.fd(), rx_region_.fd(), tx_region_.fd()};
    }

    std::shared_ptr<client::Session> attach() {
        answer(attach_reply(), attach_fds());
        auto session = client::Session::attach(std::move(client_end_), "test");
        REQUIRE(session);
        return *session;
    }

    void answer_channel() {
        shm::Message message;
        message.type = shm::MessageType::CreateChannel;
        message.channel = {.channel = 7,
                           .shard_count = shards_,
                           .channel_bytes = shm::Channel::bytes(shards_)};
        std::vector<int> fds{channel_region_.fd(), doorbell_.client.get()};
        for (const shm::UniqueFd& fd : shard_doorbells) fds.push_back(fd.get());
        answer(message, fds);
    }

    std::unique_ptr<client::Channel> open(const std::shared_ptr<client::Session>& session) {
        answer_channel();
        auto channel = client::Channel::open(session);
        REQUIRE(channel);
        (*channel)->set_spin(Micros(0));
        return std::move(*channel);
    }

    /// What the client submitted to this shard and was not yet taken; fails the test without.
    shm::Submission take(shm::SubmissionOp op, std::uint32_t shard = 0) {
        shm::Submission submission;
        REQUIRE(submissions[shard].pop({&submission, 1}) == 1);
        REQUIRE(submission.op == op);
        return submission;
    }
    bool silent(std::uint32_t shard = 0) {
        shm::Submission submission;
        return submissions[shard].pop({&submission, 1}) == 0;
    }

    void complete(const shm::Completion& completion, std::uint32_t shard = 0) {
        must(completions[shard].push({&completion, 1}) == 1, "no room for a completion");
        ringers_[shard].ring();
    }

    /// Connects a fresh socket; its shard is `shard`, its name there `id`.
    client::Socket& connected(client::Channel& channel, shm::ConnectionId id) {
        client::Socket* socket = channel.create(0);
        REQUIRE(channel.connect(*socket, remote()));
        const shm::Submission asked = take(shm::SubmissionOp::Connect, socket->shard);
        complete(connected_to(asked.user, id), socket->shard);
        REQUIRE(channel.process() == 1);
        REQUIRE(socket->state == client::SocketState::Connected);
        while (client::Socket* changed = channel.next_changed())
            client::Channel::take_edges(*changed);
        return *socket;
    }

    static Endpoint remote() { return {*IpAddress::parse("10.7.0.1"), 6379}; }
    static Endpoint local() { return {*IpAddress::parse("10.7.0.2"), 40'000}; }

    static shm::Completion connected_to(std::uint64_t user, shm::ConnectionId id) {
        shm::Completion completion;
        completion.op = shm::CompletionOp::Connected;
        completion.connection = id;
        completion.user = user;
        completion.endpoints = {.remote = remote(), .local = local(), .peer_mss = 1460};
        return completion;
    }
    static shm::Completion accepted(std::uint32_t listener, shm::ConnectionId id) {
        shm::Completion completion = connected_to(listener, id);
        completion.op = shm::CompletionOp::Accepted;
        return completion;
    }
    static shm::Completion about(shm::CompletionOp op, shm::ConnectionId id, int error = 0) {
        shm::Completion completion;
        completion.op = op;
        completion.connection = id;
        completion.error = static_cast<std::uint16_t>(error);
        return completion;
    }
    static shm::Completion sent(shm::ConnectionId id, std::uint32_t bytes) {
        shm::Completion completion = about(shm::CompletionOp::Sent, id);
        completion.sent_bytes = bytes;
        return completion;
    }
    /// Puts `text` into a slot, 100 bytes in, and tells of it.
    shm::Completion received(shm::ConnectionId id, std::uint32_t slot, std::string_view text) {
        const std::uint64_t offset = std::uint64_t{slot} * kSlotBytes + 100;
        std::memcpy(rx_region_.bytes().data() + offset, text.data(), text.size());
        shm::Completion completion = about(shm::CompletionOp::Received, id);
        completion.count = 1;
        completion.slices[0] = {.offset = offset,
                                .length = static_cast<std::uint32_t>(text.size()),
                                .arena = shm::kRxArena,
                                .reserved = 0};
        return completion;
    }

    const shm::Region& rx_region() const { return rx_region_; }
    const shm::Region& tx_region() const { return tx_region_; }

    std::string text(const shm::Slice& slice) const {
        return {reinterpret_cast<const char*>(tx_region_.bytes().data()) + slice.offset,
                slice.length};
    }

    shm::UniqueFd control;
    shm::Directory* directory = nullptr;
    shm::Channel* layout = nullptr;
    std::vector<shm::RingConsumer<shm::SubmissionRing>> submissions;
    std::vector<shm::RingProducer<shm::CompletionRing>> completions;
    std::vector<shm::UniqueFd> shard_doorbells;

private:
    /// For what a test does from a second thread, too: Catch's assertions belong to one.
    static void must(bool holds, const char* what) {
        if (!holds) throw std::runtime_error(what);
    }
    static shm::Region region(const char* name, std::size_t bytes, shm::PeerAccess access) {
        auto made = shm::Region::create(name, bytes, access);
        REQUIRE(made);
        return std::move(*made);
    }

    std::uint32_t shards_;
    std::uint32_t sequence_ = 0;
    shm::UniqueFd client_end_;
    shm::Region directory_region_;
    shm::Region rx_region_;
    shm::Region tx_region_;
    shm::Region channel_region_;
    shm::ClientDoorbell doorbell_;
    std::vector<shm::DoorbellRinger> ringers_;
};

inline std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text));
}

/// What the socket received, up to 100 bytes.
inline std::string read(client::Channel& channel, client::Socket& socket) {
    std::string text(100, '\0');
    const auto count = channel.receive(socket, std::as_writable_bytes(std::span(text)));
    text.resize(count.value_or(0));
    return text;
}

}  // namespace chiru::test
