// SPDX-License-Identifier: Apache-2.0
//
// Two hosts on one wire and what their clients see of datagrams, completion by completion.
#pragma once

#include "test/sim/host.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

namespace chiru::test {

using namespace std::chrono_literals;
using shm::CompletionOp;

using Bytes = std::vector<std::byte>;

inline Bytes pattern(std::size_t bytes, unsigned seed = 1) {
    Bytes made(bytes);
    for (std::size_t i = 0; i < bytes; ++i) made[i] = static_cast<std::byte>(i * 7 + seed);
    return made;
}

/// A datagram as a client has it in the end.
struct Received {
    std::uint32_t socket = 0;
    Endpoint from;
    std::optional<IpAddress> to;
    Bytes bytes;
    std::uint8_t ttl = 0;
    std::uint16_t interface = 0;
    std::vector<shm::Slice> slices;
};

struct Error {
    std::uint32_t socket = 0;
    int error = 0;
    std::uint32_t mtu = 0;
};

/// A host with its client: sockets are opened as the daemon does it.
struct Client {
    explicit Client(const sim::HostOptions& options) : host(options) {}

    shm::DatagramId open(const Endpoint& local, std::uint32_t flags = 0,
                         std::uint32_t receive_buffer = 0) {
        ++generation;
        const shm::DatagramId id{generation * shm::kMaxDatagramSockets + generation};
        host.stack().open_datagram({.id = id,
                                    .local = local,
                                    .flags = flags,
                                    .session = sim::Host::kSession,
                                    .channel = sim::Host::kChannel,
                                    .receive_buffer = receive_buffer,
                                    .user = 7},
                                   now);
        return id;
    }
    shm::Submission submission(shm::DatagramId id, const Endpoint& to, const Bytes& bytes,
                               std::uint16_t flags = 0) {
        std::copy(bytes.begin(), bytes.end(), host.tx_arena() + tx_at);
        shm::Submission s;
        s.op = shm::SubmissionOp::SendDatagram;
        s.flags = flags;
        s.connection = {static_cast<std::uint32_t>(id), ++cookie};
        s.user = tx_at;
        s.datagram = {.remote = to.address, .source = {}, .port = to.port, .interface = 0,
                      .length = static_cast<std::uint32_t>(bytes.size())};
        tx_at += (bytes.size() + 1023) / 1024 * 1024;
        ++under_way;
        return s;
    }
    void send(shm::DatagramId id, const Endpoint& to, const Bytes& bytes,
              std::uint16_t flags = 0) {
        REQUIRE(host.submit(submission(id, to, bytes, flags), now) == Violation::None);
    }
    void listen_to_completions() {
        for (const shm::Completion& c : host.take_completions(256)) take(c);
    }
    void release(const Received& datagram) {
        for (const shm::Slice& slice : datagram.slices) {
            shm::Submission s = sim::Host::release_of(slice);
            s.op = shm::SubmissionOp::ReleaseDatagrams;
            REQUIRE(host.submit(s, now) == Violation::None);
        }
    }

    sim::Host host;
    Instant now{};
    std::vector<Received> received;
    std::vector<Error> errors;
    std::size_t under_way = 0;  ///< sends whose bytes did not come back

private:
    void take(const shm::Completion& c) {
        const auto add = [&](const shm::Slice& slice) {
            const auto bytes = host.bytes_of(slice);
            received.back().bytes.insert(received.back().bytes.end(), bytes.begin(), bytes.end());
            received.back().slices.push_back(slice);
        };
        switch (c.op) {
            case CompletionOp::Destination: destination = c.endpoints.local.address; break;
            case CompletionOp::Datagram:
                CHECK(more == 0);
                more = c.arrived.more;
                CHECK(c.user == 7);
                received.push_back({.socket = c.connection.index,
                                    .from = {c.arrived.remote, c.arrived.port},
                                    .to = std::exchange(destination, std::nullopt),
                                    .bytes = {},
                                    .ttl = c.arrived.ttl,
                                    .interface = c.arrived.interface,
                                    .slices = {}});
                add(c.arrived.slice);
                break;
            case CompletionOp::DatagramMore:
                REQUIRE(more-- > 0);
                for (std::size_t i = 0; i < c.count; ++i) add(c.slices[i]);
                break;
            case CompletionOp::DatagramError:
                errors.push_back({c.connection.index, c.error, c.endpoints.path_mtu});
                break;
            case CompletionOp::DatagramsSent: under_way -= c.count; break;
            default: FAIL("not about datagrams");
        }
    }

    std::uint32_t generation = 0;
    std::uint32_t cookie = 0;
    std::uint64_t tx_at = 0;
    std::optional<IpAddress> destination;
    unsigned more = 0;
};

/// Two clients on one wire, which keeps what went over it.
struct Wire {
    explicit Wire(sim::HostOptions left_options = {}, sim::HostOptions right_options = {})
        : left(left_options), right((right_options.number = 2, right_options)) {
        run(3s);  // duplicate address detection
        seen.clear();
    }
    void run(Micros span = 1ms) {
        const Instant end = now + span;
        while (true) {
            left.now = right.now = now;
            for (bool busy = true; busy;) {
                busy = carry(left, right);
                busy = carry(right, left) || busy;
                left.listen_to_completions();
                right.listen_to_completions();
            }
            if (now >= end) return;
            const Instant next =
                std::min(left.host.next_deadline(), right.host.next_deadline());
            now = std::clamp(next, now + 1us, end);
        }
    }
    bool carry(Client& from, Client& to) {
        const auto frames = from.host.turn(now);
        for (const sim::Frame& frame : frames) {
            seen.push_back(frame);
            if (!cut) to.host.receive(frame, now);
        }
        return !frames.empty();
    }
    /// All is delivered, released and returned.
    void require_home() {
        for (Client* client : {&left, &right}) {
            for (const Received& datagram : client->received) client->release(datagram);
            client->received.clear();
            run();
            client->host.flush_device();
            client->listen_to_completions();
            CHECK(client->under_way == 0);
            CHECK(client->host.slots_out() == 0);
            CHECK(client->host.session().datagram_slots_held.read() == 0);
        }
    }

    Client left;
    Client right;
    Instant now{};
    bool cut = false;
    std::vector<sim::Frame> seen;
};

inline sim::HostOptions right_isolated() {
    sim::HostOptions options;
    options.isolated = true;
    return options;
}

inline const IpAddress kAnyV4 = IpAddress::v4(0);

}  // namespace chiru::test
