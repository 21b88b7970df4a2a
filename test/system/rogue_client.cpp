// SPDX-License-Identifier: Apache-2.0
//
// A client that attaches as any other does and then breaks the contract of the rings, in one of
// several ways. The daemon must end its session or ignore it, and serve everybody else.
//
//   rogue_client WAY [PEER_ADDRESS PEER_PORT]
//
// Prints "ended" if the daemon ended the session within two seconds, "tolerated" if not; both may
// be right, the system test decides by WAY. The status is not 0 only if it could not misbehave.
#include "shm/channel.hpp"
#include "shm/control.hpp"
#include "shm/region.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using namespace chiru;
using namespace chiru::shm;

namespace {

/// One session with one channel, mapped by hand: libchiru would not do what is done here.
struct Session {
    UniqueFd control;
    Region region;
    Channel* channel = nullptr;
    UniqueFd client_doorbell;
    std::vector<UniqueFd> shard_doorbells;
    std::uint32_t shards = 0;
    std::uint64_t tx_arena_bytes = 0;
    std::uint32_t sequence = 0;

    Result<Parcel, int> ask(MessageType type) {
        Message request;
        request.type = type;
        request.sequence = ++sequence;
        if (type == MessageType::Attach) {
            request.attach = AttachRequest{};
            request.attach.program.set("rogue");
        }
        if (const int error = send_message(control.get(), request)) return std::unexpected(error);
        return receive_message(control.get());
    }

    bool open() {
        Result<UniqueFd, int> socket = connect_control(control_socket_path());
        if (!socket) return false;
        control = std::move(*socket);
        const Result<Parcel, int> attached = ask(MessageType::Attach);
        if (!attached || attached->message.error != 0) return false;
        shards = attached->message.attached.shard_count;
        tx_arena_bytes = attached->message.attached.tx_arena_bytes;
        Result<Parcel, int> made = ask(MessageType::CreateChannel);
        if (!made || made->message.error != 0 || made->fds.size() != 2 + shards) return false;
        Result<Region, int> mapped = Region::map(
            std::move(made->fds[0]), made->message.channel.channel_bytes, MapAccess::ReadWrite);
        if (!mapped) return false;
        region = std::move(*mapped);
        channel = Channel::attach(region.bytes(), shards);
        client_doorbell = std::move(made->fds[1]);
        for (std::uint32_t i = 0; i < shards; ++i)
            shard_doorbells.push_back(std::move(made->fds[2 + i]));
        return channel != nullptr;
    }

    void wake() const {
        const std::uint64_t one = 1;
        for (const UniqueFd& doorbell : shard_doorbells)
            if (write(doorbell.get(), &one, sizeof one) < 0) return;
    }

    /// Puts `items` on every shard's ring, for as long as the daemon takes them: it may stop, for
    /// completions that nobody reads, which is right.
    void submit(const std::vector<Submission>& items) {
        using Clock = std::chrono::steady_clock;
        const Clock::time_point enough = Clock::now() + std::chrono::seconds(5);
        for (std::uint32_t shard = 0; shard < shards; ++shard) {
            SubmissionRing& ring = channel->lane(shard).submissions;
            RingProducer<SubmissionRing>& producer =
                producers.try_emplace(shard, RingProducer<SubmissionRing>(ring)).first->second;
            for (std::size_t done = 0;
                 done < items.size() && !ended(0) && Clock::now() < enough;) {
                done += producer.push(std::span(items).subspan(done));
                wake();
            }
        }
    }
    std::map<std::uint32_t, RingProducer<SubmissionRing>> producers;

    /// Did the daemon close the control socket, within `wait_ms`?
    bool ended(int wait_ms) const {
        pollfd end{control.get(), POLLIN, 0};
        return poll(&end, 1, wait_ms) > 0 && (end.revents & (POLLHUP | POLLIN)) != 0;
    }
};

Submission submission(SubmissionOp op, ConnectionId connection = {}) {
    Submission made;
    made.op = op;
    made.connection = connection;
    return made;
}

/// A connection of our own to `peer`, for crimes that need a right name.
std::optional<std::pair<std::uint32_t, ConnectionId>> connect_to(Session& session,
                                                                 const Endpoint& peer) {
    Submission open = submission(SubmissionOp::Connect);
    open.connect = ConnectBody{peer, {}, 0};
    session.submit({open});
    for (int tries = 0; tries < 200; ++tries) {
        for (std::uint32_t shard = 0; shard < session.shards; ++shard) {
            const CompletionRing& ring = session.channel->lane(shard).completions;
            const Completion& first = ring.slots[0];
            if (ring.head.load(std::memory_order_acquire) != 0 &&
                first.op == CompletionOp::Connected)
                return std::pair{shard, first.connection};
        }
        poll(nullptr, 0, 10);
    }
    return std::nullopt;
}

// The crimes.

void ring_positions(Session& session, const Endpoint&) {
    for (std::uint32_t shard = 0; shard < session.shards; ++shard) {
        session.channel->lane(shard).submissions.head.store(0x8000'0000);
        session.channel->lane(shard).completions.tail.store(0x7fff'ffff);
    }
    session.wake();
}

void completion_tail(Session& session, const Endpoint& peer) {
    for (std::uint32_t shard = 0; shard < session.shards; ++shard)
        session.channel->lane(shard).completions.tail.store(0x7fff'ffff);
    Submission open = submission(SubmissionOp::Connect);
    open.connect = ConnectBody{peer, {}, 0};
    session.submit(std::vector<Submission>(2000, open));
}

void unknown_operations(Session& session, const Endpoint&) {
    std::vector<Submission> items;
    for (unsigned op = 10; op < 256; ++op)
        items.push_back(submission(static_cast<SubmissionOp>(op)));
    session.submit(items);
}

void slices_out_of_range(Session& session, const Endpoint& peer) {
    const auto own = connect_to(session, peer);
    if (!own) return;
    const std::uint64_t end = session.tx_arena_bytes;
    const std::array<Slice, 9> wrong{{{end, 1, kTxArena},
                                      {end - 1, 2, kTxArena},
                                      {~0ull, 1, kTxArena},
                                      {~0ull - 10, 100, kTxArena},
                                      {0, ~0u, kTxArena},
                                      {0, 64, ArenaId{7}},
                                      {0, 64, ArenaId{0xffff}},
                                      {~0ull / 2, 64, kRxArena},
                                      {0, 0, kTxArena}}};
    std::vector<Submission> items;
    for (const Slice& slice : wrong) {
        Submission send = submission(SubmissionOp::Send, own->second);
        send.count = 1;
        send.slices[0] = slice;
        items.push_back(send);
        send.count = 255;
        items.push_back(send);
    }
    session.submit(items);
}

void foreign_slots(Session& session, const Endpoint&) {
    std::vector<Submission> items;
    for (std::uint32_t slot = 0; slot < 20'000; slot += kReleasesPerDescriptor) {
        Submission release = submission(SubmissionOp::Release);
        release.count = kReleasesPerDescriptor;
        release.release = ReleaseBody{};
        for (std::uint32_t i = 0; i < kReleasesPerDescriptor; ++i)
            release.release.slots[i] = slot + i;
        items.push_back(release);
    }
    items.back().release.slots.fill(~0u);
    items.back().count = 200;
    session.submit(items);
}

void foreign_connections(Session& session, const Endpoint&) {
    std::vector<Submission> items;
    for (std::uint32_t generation = 0; generation < 8; ++generation) {
        for (std::uint32_t index = 0; index < 2000; ++index) {
            items.push_back(submission(SubmissionOp::Abort, {index, generation}));
            Submission send = submission(SubmissionOp::Send, {index, generation});
            send.count = 1;
            send.slices[0] = Slice{0, 64, kTxArena};
            items.push_back(send);
        }
        items.push_back(submission(SubmissionOp::Close, {~0u, generation}));
    }
    session.submit(items);
}

void foreign_listeners(Session& session, const Endpoint&) {
    std::vector<Submission> items;
    for (std::uint32_t listener = 0; listener < 5000; ++listener) {
        Submission credit = submission(SubmissionOp::AcceptCredit);
        credit.credit = CreditBody{static_cast<ListenerId>(listener), 1'000'000};
        items.push_back(credit);
    }
    items.back().credit.listener = static_cast<ListenerId>(~0u);
    session.submit(items);
}

void noise(Session& session, const Endpoint&) {
    std::mt19937_64 random(11);
    std::vector<Submission> items(50'000);
    for (Submission& item : items) {
        std::array<std::uint64_t, 8> words;
        for (std::uint64_t& word : words) word = random();
        std::memcpy(static_cast<void*>(&item), words.data(), sizeof item);
        item.op = static_cast<SubmissionOp>(random() % 10);
        if (random() % 2 == 0) item.connection = {static_cast<std::uint32_t>(random() % 64), 1};
    }
    session.submit(items);
}

void connects_without_end(Session& session, const Endpoint& peer) {
    Submission open = submission(SubmissionOp::Connect);
    open.connect = ConnectBody{peer, {}, 0};
    open.connect.remote.port = 9;
    session.submit(std::vector<Submission>(100'000, open));  // and never reads an answer
}

void fast_doorbell(Session& session, const Endpoint&) {
    for (int i = 0; i < 300'000; ++i) session.wake();
}

/// Makes every doorbell block whoever writes or reads it, steals what rang, and is rung all the
/// while.
void doorbell_descriptors(Session& session, const Endpoint& peer) {
    const std::uint64_t full = ~0ull - 1;
    std::uint64_t stolen = 0;
    const auto fill = [&](int fd) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        while (read(fd, &stolen, sizeof stolen) > 0) {
        }
        fcntl(fd, F_SETFL, 0);
        return write(fd, &full, sizeof full);
    };
    Submission open = submission(SubmissionOp::Connect);
    open.connect = ConnectBody{peer, {}, 0};
    open.connect.remote.port = 9;
    for (std::uint32_t round = 0; round < 300; ++round) {
        session.channel->client_doorbell.epoch.store(2 * round + 1);  // asleep, once more
        for (const UniqueFd& doorbell : session.shard_doorbells)
            while (fill(doorbell.get()) < 0 && errno == EINTR) {
            }
        if (fill(session.client_doorbell.get()) > 0) std::puts("the client's doorbell was filled");
        for (const UniqueFd& doorbell : session.shard_doorbells)
            if (read(doorbell.get(), &stolen, sizeof stolen) < 0) return;
        session.submit({open});
    }
}

const std::map<std::string_view, void (*)(Session&, const Endpoint&)> kWays{
    {"ring_positions", ring_positions},
    {"completion_tail", completion_tail},
    {"unknown_operations", unknown_operations},
    {"slices_out_of_range", slices_out_of_range},
    {"foreign_slots", foreign_slots},
    {"foreign_connections", foreign_connections},
    {"foreign_listeners", foreign_listeners},
    {"noise", noise},
    {"connects_without_end", connects_without_end},
    {"fast_doorbell", fast_doorbell},
    {"doorbell_descriptors", doorbell_descriptors},
};

}  // namespace

int main(int count, char** arguments) {
    const auto way = count > 1 ? kWays.find(arguments[1]) : kWays.end();
    if (way == kWays.end()) {
        for (const auto& [name, unused] : kWays)
            std::printf("%.*s\n", int(name.size()), name.data());
        return count > 1 ? 2 : 0;
    }
    Endpoint peer;
    if (count == 4) {
        const std::string_view port = arguments[3];
        peer.address = IpAddress::parse(arguments[2]).value_or(IpAddress{});
        std::from_chars(port.data(), port.data() + port.size(), peer.port);
    }
    Session session;
    if (!session.open()) {
        std::fprintf(stderr, "rogue_client: cannot attach to %s\n", control_socket_path().c_str());
        return 1;
    }
    way->second(session, peer);
    std::puts(session.ended(2000) ? "ended" : "tolerated");
    return 0;
}
