// SPDX-License-Identifier: Apache-2.0
//
// A real Stack behind the rings of a FakeDaemon: connections to its own address go through all of
// TCP and come back, in virtual time and one thread.
#pragma once

#include "shm/counters.hpp"
#include "stack/stack.hpp"
#include "test/libclient/fake_daemon.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

namespace chiru::test {

class Loopback : public BufferPool {
public:
    static constexpr SessionIndex kSession = 0;
    static constexpr ChannelIndex kChannel = 0;

    explicit Loopback(FakeDaemon& daemon) : daemon_(daemon) {
        const StackConfig config = make_config();
        tables_ = std::move(*shm::Region::create("tables", Stack::tables_bytes(config),
                                                 shm::PeerAccess::ReadOnly));
        const auto rx = daemon.rx_region().bytes();
        stack = std::make_unique<Stack>(config, tables_.bytes(),
                                        ArenaView{rx.data(), rx.size(), kSlotBytes}, *this,
                                        *counters_, now_);
        SessionConfig session;
        session.id = 1;
        const auto tx = daemon.tx_region().bytes();
        session.tx_arena = {tx.data(), tx.size(), 0};
        session.max_connections = config.connections;
        session.max_rx_slots = kSlots;
        stack->attach_session(kSession, session);
        stack->attach_channel(kChannel, kSession);
        for (std::uint32_t i = 0; i < kSlots; ++i) free_.push_back(i);
        for (std::vector<std::byte>& head : heads_) head.resize(10'240);
    }

    /// Binds and listens, as the control thread would.
    shm::BindReply listen(std::uint32_t id, std::uint16_t port) {
        shm::BindReply bound;
        bound.listener = shm::ListenerId{id};
        bound.endpoint = {address(), port};
        stack->listen(bound.listener, bound.endpoint, 0, {.backlog = 128, .fast_open = 16});
        stack->share_listener(bound.listener, kSession);
        return bound;
    }

    /// One turn of the shard, some time after the last.
    void turn() {
        now_ += Micros(100);
        std::array<shm::Submission, 64> submissions;
        const std::size_t most =
            std::min(submissions.size(), stack->submission_room(kChannel));
        const std::size_t count =
            daemon_.submissions[0].pop(std::span(submissions).first(most));
        REQUIRE(stack->submit(kChannel, std::span(submissions).first(count), now_) ==
                Violation::None);
        stack->advance(now_);
        transmit();
        std::array<shm::Completion, 64> completions;
        while (daemon_.completions[0].has_room(completions.size())) {
            const std::size_t made = stack->complete(kChannel, completions);
            if (made == 0) break;
            REQUIRE(daemon_.completions[0].push(std::span(completions).first(made)) == made);
        }
    }

    static IpAddress address() { return IpAddress::v4(0x0a07'0002); }
    std::size_t slots_out() const { return kSlots - free_.size(); }

    std::unique_ptr<Stack> stack;

private:
    static StackConfig make_config() {
        StackConfig config;
        config.connections = 1024;
        config.send_records = 4096;
        config.listeners = 16;
        config.neighbors = 16;
        config.rx_slots = kSlots;
        config.secret = {1, 2};
        PortConfig port;
        port.mac = MacAddress{{2, 0, 0, 0, 0, 1}};
        config.ports.push_back(port);
        InterfaceConfig interface;
        interface.name = "loop";
        interface.addresses.push_back({address(), 24});
        config.interfaces.push_back(interface);
        return config;
    }

    void release(std::span<const shm::Slice> slots) override {
        for (const shm::Slice& slice : slots)
            free_.push_back(static_cast<std::uint32_t>(slice.offset / kSlotBytes));
    }

    /// Frames to ourselves come back in fresh slots; with none free they are lost, as on a wire.
    void transmit() {
        std::array<TxFrame, 16> frames;
        for (std::size_t i = 0; i < frames.size(); ++i) {
            frames[i].head = heads_[i].data();
            frames[i].head_capacity = static_cast<std::uint16_t>(heads_[i].size());
        }
        const std::size_t count = stack->transmit(frames, now_);
        for (const TxFrame& frame : std::span(frames).first(count)) {
            if (frame.port == kLocalPort && !free_.empty()) loop(frame);
            for (std::size_t i = 0; i < frame.slice_count; ++i)
                stack->sent(frame.slices[i].record);
        }
    }

    void loop(const TxFrame& frame) {
        const std::uint32_t slot = free_.front();
        free_.erase(free_.begin());
        const std::uint64_t at = std::uint64_t{slot} * kSlotBytes + 128;
        std::byte* data = daemon_.rx_region().bytes().data() + at;
        std::memcpy(data, frame.head, frame.head_length);
        std::size_t length = frame.head_length;
        for (const TxSlice& slice : std::span(frame.slices).first(frame.slice_count)) {
            std::memcpy(data + length, slice.data, slice.slice.length);
            length += slice.slice.length;
        }
        RxFrame received;
        received.data = data;
        received.slice = {.offset = at,
                          .length = static_cast<std::uint32_t>(length),
                          .arena = shm::kRxArena,
                          .reserved = 0};
        received.port = kLocalPort;
        received.flags = kRxLocal | kRxIpChecksumGood | kRxL4ChecksumGood;
        stack->receive(std::span(&received, 1), now_);
    }

    FakeDaemon& daemon_;
    Instant now_{std::chrono::seconds(1)};
    shm::Region tables_;
    std::unique_ptr<shm::CounterBlock> counters_ = std::make_unique<shm::CounterBlock>();
    std::vector<std::uint32_t> free_;
    std::array<std::vector<std::byte>, 16> heads_;
};

}  // namespace chiru::test
