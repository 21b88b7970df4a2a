// SPDX-License-Identifier: Apache-2.0
//
// A daemon without a network: it owns 10.99.0.1 and fd99::1 and connects its clients with each
// other, byte by byte. Control socket, memory, rings and doorbells are real, TCP is left out; so
// POSIX semantics are tested without privileges, devices or time, against nothing but the contract
// of shm/. One shard, one thread, no defence against clients: a test's tool.
//
//   mirror_daemon SOCKET PROGRAM [ARGUMENT]...     runs PROGRAM once the socket is there
#include "shm/channel.hpp"
#include "shm/control.hpp"
#include "shm/directory.hpp"
#include "shm/region.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace chiru;
using namespace chiru::shm;

namespace {

constexpr std::uint32_t kSlotBytes = 4096;
constexpr std::uint32_t kSlots = 4096;
constexpr std::size_t kTxBytes = 8U << 20;
constexpr std::size_t kReceiveWindow = 256U << 10;

struct Session;

/// One end of a connection.
struct End {
    ConnectionId id;
    Session* owner = nullptr;
    End* peer = nullptr;
    std::uint64_t user = 0;
    Endpoint local;
    Endpoint remote;
    std::deque<Slice> sent;         ///< in the owner's TX arena, not yet delivered
    std::size_t unread_bytes = 0;   ///< delivered to the owner and not released
    bool send_done = false;
    bool peer_told_done = false;
    bool closed = false;            ///< the owner's name of it is dead
    bool tells_left = false;        ///< the owner wants to hear what leaves `sent`

    std::uint32_t sent_bytes() const {
        std::uint32_t bytes = 0;
        for (const Slice& slice : sent) bytes += slice.length;
        return bytes;
    }
};

struct Listener {
    ListenerId id{};
    ListenerToken token{};
    Endpoint endpoint;
    bool v6_only = false;
    bool listening = false;
    std::uint32_t backlog = 0;
    std::vector<Session*> holders;
    std::map<Session*, std::uint32_t> credit;
    std::deque<End*> waiting;
};

struct Session {
    UniqueFd control;
    Region tx;
    Region channel_region;
    ClientDoorbell doorbell;
    UniqueFd shard_doorbell;
    std::optional<RingConsumer<SubmissionRing>> submissions;
    std::optional<RingProducer<CompletionRing>> completions;
    std::optional<DoorbellRinger> ringer;
    std::deque<Completion> late;
    std::map<std::uint32_t, End*> slots;  ///< who reads which slot
    bool said_farewell = false;
    bool leaving = false;  ///< it is gone; what it said last waits for somebody to accept it
};

class Mirror {
public:
    explicit Mirror(const std::string& path);
    void run(pid_t child);

private:
    void accept_session();
    bool serve(Session& session);
    void answer(Session& session, Message& reply, const std::vector<int>& fds = {});
    void attach(Session& session, Message& reply);
    void make_channel(Session& session, Message& reply);
    void bind(Session& session, const BindRequest& request, Message& reply);
    Listener* listener(ListenerId id);
    Listener* listener_for(const Endpoint& remote);
    void leave(Session& session, Listener& each);
    void see_off(Session& session);
    bool is_awaited(const Session& session) const;
    void end_session(Session& session);

    bool turn(Session& session);
    void handle(Session& session, const Submission& submission);
    void connect(Session& session, const Submission& submission);
    void hand_out(Listener& each);
    bool deliver(End& end);
    void tell_left(const End& end);
    void finish(End& end, int error);
    void complete(Session& session, Completion completion);
    End* find(Session& session, ConnectionId id);

    UniqueFd door_;
    Region directory_region_;
    Region rx_;
    Directory* directory_ = nullptr;
    std::vector<std::unique_ptr<Session>> sessions_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    std::map<std::uint32_t, std::unique_ptr<End>> ends_;
    std::vector<std::uint32_t> free_slots_;
    std::uint32_t next_ = 1;
    std::uint16_t next_port_ = 40'000;
};

Region region(const char* name, std::size_t bytes, PeerAccess access) {
    auto made = Region::create(name, bytes, access);
    if (!made) std::abort();
    return std::move(*made);
}

Mirror::Mirror(const std::string& path)
    : directory_region_(region("directory", sizeof(Directory), PeerAccess::ReadOnly)),
      rx_(region("rx", std::size_t{kSlotBytes} * kSlots, PeerAccess::ReadOnly)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    unlink(path.c_str());
    door_.reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (::bind(door_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        listen(door_.get(), 64) != 0) {
        std::perror("mirror_daemon");
        std::exit(1);
    }
    for (std::uint32_t i = 0; i < kSlots; ++i) free_slots_.push_back(kSlots - 1 - i);
    directory_ = new (directory_region_.bytes().data()) Directory;
    directory_->version = kDirectoryVersion;
    directory_->bytes = sizeof(Directory);
    directory_->shard_count = 1;
    directory_->rx_slot_bytes = kSlotBytes;
    InterfaceInfo interface;
    interface.in_use = 1;
    for (const char* text : {"10.99.0.1/24", "fd99::1/64", "127.0.0.1/8", "::1/128"}) {
        AddressInfo& info = interface.addresses[interface.address_count++];
        info.prefix = *IpPrefix::parse(text);
        info.state = AddressState::Preferred;
    }
    directory_->interfaces[0].publish(interface);
    directory_->interfaces_changed = 1;
    directory_->magic = kDirectoryMagic;
}

// ---- control -------------------------------------------------------------------------------

void Mirror::accept_session() {
    const int fd = accept4(door_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    sessions_.push_back(std::make_unique<Session>());
    sessions_.back()->control.reset(fd);
}

void Mirror::answer(Session& session, Message& reply, const std::vector<int>& fds) {
    static_cast<void>(send_message(session.control.get(), reply, fds));
}

void Mirror::attach(Session& session, Message& reply) {
    session.tx = region("tx", kTxBytes, PeerAccess::ReadWrite);
    reply.attached = {};
    reply.attached.session = next_++;
    reply.attached.shard_count = 1;
    reply.attached.directory_bytes = directory_region_.bytes().size();
    reply.attached.rx_arena_bytes = rx_.bytes().size();
    reply.attached.tx_arena_bytes = session.tx.bytes().size();
    reply.attached.rx_slot_bytes = kSlotBytes;
    reply.attached.max_connections = 65'536;
    answer(session, reply, {directory_region_.fd(), rx_.fd(), session.tx.fd()});
}

void Mirror::make_channel(Session& session, Message& reply) {
    session.channel_region = region("channel", Channel::bytes(1), PeerAccess::ReadWrite);
    Channel& layout = Channel::create(session.channel_region.bytes(), 1, next_++);
    session.doorbell = std::move(*make_client_doorbell());
    session.shard_doorbell.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    session.submissions.emplace(layout.lane(0).submissions);
    session.completions.emplace(layout.lane(0).completions);
    session.ringer.emplace(layout.client_doorbell, session.doorbell.ring.get());
    reply.channel = {.channel = 1, .shard_count = 1, .channel_bytes = Channel::bytes(1)};
    answer(session, reply, {session.channel_region.fd(), session.doorbell.client.get(),
                            session.shard_doorbell.get()});
}

Listener* Mirror::listener(ListenerId id) {
    for (const auto& each : listeners_)
        if (each->id == id) return each.get();
    return nullptr;
}

bool clash(const Listener& each, const Endpoint& wanted, bool v6_only) {
    if (each.endpoint.port != wanted.port) return false;
    const IpAddress& a = each.endpoint.address;
    const IpAddress& b = wanted.address;
    if (a == b) return true;
    if (a.is_v4() == b.is_v4()) return a.is_unspecified() || b.is_unspecified();
    const bool a_takes_both = a.is_v6() && a.is_unspecified() && !each.v6_only;
    const bool b_takes_both = b.is_v6() && b.is_unspecified() && !v6_only;
    return a_takes_both || b_takes_both;
}

void Mirror::bind(Session& session, const BindRequest& request, Message& reply) {
    Endpoint wanted = request.endpoint;
    const bool v6_only = (request.flags & kBindV6Only) != 0;
    if (wanted.port == 0) wanted.port = next_port_++;
    for (const auto& each : listeners_)
        if (clash(*each, wanted, v6_only)) reply.error = EADDRINUSE;
    if (reply.error == 0) {
        auto made = std::make_unique<Listener>();
        made->id = ListenerId{next_++};
        made->token = {0x1234, static_cast<std::uint64_t>(made->id)};
        made->endpoint = wanted;
        made->v6_only = v6_only;
        made->holders = {&session};
        reply.bound = {made->id, made->endpoint, made->token};
        listeners_.push_back(std::move(made));
    }
    answer(session, reply);
}

void Mirror::leave(Session& session, Listener& each) {
    each.credit.erase(&session);
    std::erase(each.holders, &session);
    if (!each.holders.empty()) return;
    for (End* end : each.waiting)
        if (end->peer != nullptr) finish(*end->peer, ECONNRESET);
    std::erase_if(listeners_, [&](const auto& one) { return one.get() == &each; });
}

bool Mirror::serve(Session& session) {
    auto parcel = receive_message(session.control.get());
    if (!parcel) return false;
    const Message asked = parcel->message;
    Message reply;
    reply.type = asked.type;
    reply.sequence = asked.sequence;
    Listener* named = nullptr;
    switch (asked.type) {
        case MessageType::Attach: attach(session, reply); return true;
        case MessageType::CreateChannel: make_channel(session, reply); return true;
        case MessageType::Bind: bind(session, asked.bind, reply); return true;
        case MessageType::Listen:
            named = listener(asked.listen.listener);
            if (named == nullptr) reply.error = EINVAL;
            else named->listening = true, named->backlog = asked.listen.backlog;
            break;
        case MessageType::Adopt:
            named = listener(asked.adopt.listener);
            if (named == nullptr || named->token != asked.adopt.token) reply.error = EINVAL;
            else {
                named->holders.push_back(&session);
                reply.bound = {named->id, named->endpoint, named->token};
            }
            break;
        case MessageType::Unbind:
            named = listener(asked.unbind.listener);
            if (named != nullptr) leave(session, *named);
            break;
        case MessageType::Farewell: session.said_farewell = true; return true;
        case MessageType::ConnectionInfo: {
            const End* end = find(session, asked.query.connection);
            reply.connection = {};
            if (end != nullptr) reply.connection.snd_end = end->sent_bytes();
            break;
        }
        default: break;
    }
    answer(session, reply);
    return true;
}

/// Takes what it had still to say. After a farewell, what it sent arrives, and then the end.
void Mirror::see_off(Session& session) {
    turn(session);
    if (!session.said_farewell) return;
    for (const auto& [index, end] : ends_) {
        if (end->owner != &session || end->closed || end->unread_bytes != 0) continue;
        end->send_done = end->closed = true;
    }
    for (const auto& [index, end] : ends_)
        if (end->owner == &session && end->closed)
            while (deliver(*end)) {}
}

/// Did it say something to an end that nobody has accepted yet?
bool Mirror::is_awaited(const Session& session) const {
    return session.said_farewell && std::ranges::any_of(ends_, [&](const auto& each) {
        const End& end = *each.second;
        return end.owner == &session && end.peer != nullptr && end.peer->owner == nullptr;
    });
}

void Mirror::end_session(Session& session) {
    see_off(session);
    session.leaving = is_awaited(session);
    if (session.leaving) return session.control.reset();
    for (std::size_t i = listeners_.size(); i-- > 0;) leave(session, *listeners_[i]);
    for (const auto& [index, end] : ends_)
        if (end->owner == &session && !end->closed) {
            end->closed = true;
            if (end->peer != nullptr) finish(*end->peer, ECONNRESET);
        }
    for (const auto& [index, end] : ends_)
        if (end->owner == &session && end->peer != nullptr) end->peer->peer = nullptr;
    std::erase_if(ends_, [&](const auto& each) { return each.second->owner == &session; });
    for (const auto& [slot, end] : session.slots) free_slots_.push_back(slot);
    std::erase_if(sessions_, [&](const auto& each) { return each.get() == &session; });
}

// ---- data ----------------------------------------------------------------------------------

void Mirror::complete(Session& session, Completion completion) {
    session.late.push_back(completion);
}

End* Mirror::find(Session& session, ConnectionId id) {
    const auto found = ends_.find(id.index);
    return found == ends_.end() || found->second->owner != &session ? nullptr
                                                                    : found->second.get();
}

Listener* Mirror::listener_for(const Endpoint& remote) {
    Listener* any = nullptr;
    for (const auto& each : listeners_) {
        if (!each->listening || each->endpoint.port != remote.port) continue;
        const IpAddress& own = each->endpoint.address;
        if (own == remote.address) return each.get();
        const bool family =
            own.is_v4() == remote.address.is_v4() || (own.is_v6() && !each->v6_only);
        if (own.is_unspecified() && family) any = each.get();
    }
    return any;
}

void Mirror::connect(Session& session, const Submission& submission) {
    const Endpoint remote = submission.connect.remote;
    Listener* to = listener_for(remote);
    Completion completion;
    completion.user = submission.user;
    if (to == nullptr || to->waiting.size() > to->backlog) {
        completion.op = CompletionOp::Closed;
        completion.error = ECONNREFUSED;
        complete(session, completion);
        return;
    }
    Endpoint local = submission.connect.local;
    if (local.port == 0) local.port = next_port_++;
    if (local.address.is_unspecified()) local.address = remote.address;
    End* ends[2] = {};
    for (End*& end : ends) {
        const std::uint32_t index = next_++;
        end = (ends_[index] = std::make_unique<End>()).get();
        end->id = {index, index};
    }
    ends[0]->owner = &session;
    ends[0]->user = submission.user;
    ends[0]->local = ends[1]->remote = local;
    ends[0]->remote = ends[1]->local = remote;
    ends[0]->peer = ends[1];
    ends[1]->peer = ends[0];
    completion.op = CompletionOp::Connected;
    completion.connection = ends[0]->id;
    completion.endpoints = {.remote = remote, .local = local, .peer_mss = 1460};
    complete(session, completion);
    to->waiting.push_back(ends[1]);
    hand_out(*to);
}

void Mirror::hand_out(Listener& each) {
    for (auto& [session, credit] : each.credit)
        for (; credit != 0 && !each.waiting.empty(); --credit) {
            End* end = each.waiting.front();
            each.waiting.pop_front();
            end->owner = session;
            Completion completion;
            completion.op = CompletionOp::Accepted;
            completion.connection = end->id;
            completion.user = static_cast<std::uint64_t>(each.id);
            completion.endpoints = {.remote = end->remote, .local = end->local, .peer_mss = 1460};
            complete(*session, completion);
            if (end->peer == nullptr) finish(*end, ECONNRESET);  // its client was killed
        }
}

/// Tells the owner of `end` that the connection is over.
void Mirror::finish(End& end, int error) {
    if (end.peer != nullptr) end.peer->peer = nullptr;
    end.peer = nullptr;
    if (end.owner == nullptr) return;
    if (!end.closed) {
        Completion completion;
        completion.op = CompletionOp::Closed;
        completion.connection = end.id;
        completion.user = end.user;
        completion.error = static_cast<std::uint16_t>(error);
        completion.sent_bytes = end.sent_bytes();
        complete(*end.owner, completion);
    }
    end.sent.clear();
    end.closed = true;
}

/// What was not sent when its owner began to ask.
void Mirror::tell_left(const End& end) {
    Completion completion;
    completion.op = CompletionOp::Sent;
    completion.connection = end.id;
    completion.user = end.user;
    completion.sent.left_bytes = -static_cast<std::int32_t>(end.sent_bytes());
    complete(*end.owner, completion);
}

void Mirror::handle(Session& session, const Submission& submission) {
    if (submission.op == SubmissionOp::Connect) return connect(session, submission);
    if (submission.op == SubmissionOp::AcceptCredit) {
        Listener* to = listener(submission.credit.listener);
        if (to == nullptr) return;
        to->credit[&session] += submission.credit.count;
        return hand_out(*to);
    }
    if (submission.op == SubmissionOp::Release) {
        for (std::size_t i = 0; i < submission.count; ++i) {
            const std::uint32_t slot = submission.release.slots[i];
            const auto reader = session.slots.find(slot);
            if (reader == session.slots.end()) std::abort();  // released twice
            const auto end = ends_.find(reader->second->id.index);
            if (end != ends_.end()) end->second->unread_bytes -= kSlotBytes;
            session.slots.erase(reader);
            free_slots_.push_back(slot);
        }
        return;
    }
    End* end = find(session, submission.connection);
    if (end == nullptr || end->closed) return;
    switch (submission.op) {
        case SubmissionOp::Send:
            for (std::size_t i = 0; i < submission.count; ++i)
                end->sent.push_back(submission.slices[i]);
            break;
        case SubmissionOp::SetOption:
            if (submission.option.option != ConnectionOption::UnsentLowWater || end->tells_left)
                break;
            end->tells_left = true;
            tell_left(*end);
            break;
        case SubmissionOp::SetUser: end->user = submission.user; break;
        case SubmissionOp::Shutdown: end->send_done = true; break;
        case SubmissionOp::Close:
            end->send_done = true;
            end->closed = true;
            break;
        case SubmissionOp::Return:
        case SubmissionOp::Abort:
            end->closed = true;
            if (end->peer != nullptr) finish(*end->peer, ECONNRESET);
            break;
        default: break;
    }
}

/// Moves what `end` sent towards its peer; true if something moved.
bool Mirror::deliver(End& end) {
    bool moved = false;
    End* to = end.peer;
    if (to == nullptr || to->owner == nullptr) return false;
    std::uint32_t returned = 0;
    while (!end.sent.empty() && !free_slots_.empty() && to->unread_bytes < kReceiveWindow) {
        Slice& from = end.sent.front();
        const std::uint32_t length = std::min(from.length, kSlotBytes);
        if (!to->closed) {
            const std::uint32_t slot = free_slots_.back();
            free_slots_.pop_back();
            const std::uint64_t offset = std::uint64_t{slot} * kSlotBytes;
            std::memcpy(rx_.bytes().data() + offset, end.owner->tx.bytes().data() + from.offset,
                        length);
            Completion completion;
            completion.op = CompletionOp::Received;
            completion.connection = to->id;
            completion.user = to->user;
            completion.count = 1;
            completion.slices[0] = {.offset = offset, .length = length, .arena = kRxArena,
                                    .reserved = 0};
            to->owner->slots[slot] = to;
            to->unread_bytes += kSlotBytes;
            complete(*to->owner, completion);
        }
        from.offset += length;
        from.length -= length;
        returned += length;
        if (from.length == 0) end.sent.pop_front();
        moved = true;
    }
    if (returned != 0) {
        Completion completion;
        completion.op = CompletionOp::Sent;
        completion.connection = end.id;
        completion.user = end.user;
        completion.sent_bytes = returned;
        if (end.tells_left) completion.sent.left_bytes = static_cast<std::int32_t>(returned);
        complete(*end.owner, completion);
    }
    if (end.send_done && end.sent.empty() && !end.peer_told_done) {
        end.peer_told_done = moved = true;
        Completion completion;
        completion.op = CompletionOp::PeerClosed;
        completion.connection = to->id;
        completion.user = to->user;
        if (!to->closed) complete(*to->owner, completion);
    }
    if (end.peer_told_done && to->peer_told_done && end.peer != nullptr) {
        finish(*to, 0);
        finish(end, 0);
    }
    return moved;
}

bool Mirror::turn(Session& session) {
    if (!session.submissions) return false;
    bool moved = false;
    Submission submission;
    while (session.submissions->pop({&submission, 1}) == 1) {
        moved = true;
        handle(session, submission);
    }
    return moved;
}

void Mirror::run(pid_t child) {
    for (;;) {
        bool moved = false;
        for (const auto& session : sessions_) moved |= turn(*session);
        for (const auto& [index, end] : ends_)
            if (end->owner != nullptr) moved |= deliver(*end);
        for (const auto& session : sessions_) {
            const bool any = !session->late.empty();
            while (!session->late.empty() &&
                   session->completions->push({&session->late.front(), 1}) == 1)
                session->late.pop_front();
            if (any) session->ringer->ring();
            moved |= any;
        }
        for (std::size_t i = sessions_.size(); i-- > 0;)
            if (sessions_[i]->leaving) end_session(*sessions_[i]);
        std::vector<pollfd> fds{{.fd = door_.get(), .events = POLLIN, .revents = 0}};
        for (const auto& session : sessions_)
            fds.push_back({.fd = session->control.get(), .events = POLLIN, .revents = 0});
        const timespec rest{.tv_sec = 0, .tv_nsec = moved ? 0 : 50'000};
        if (ppoll(fds.data(), fds.size(), &rest, nullptr) > 0) {
            if (fds[0].revents != 0) accept_session();
            for (std::size_t i = fds.size(); i-- > 1;)
                if (fds[i].revents != 0 && !serve(*sessions_[i - 1]))
                    end_session(*sessions_[i - 1]);
        }
        int status = 0;
        if (waitpid(child, &status, WNOHANG) == child)
            std::exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fputs("usage: mirror_daemon SOCKET PROGRAM [ARGUMENT]...\n", stderr);
        return 2;
    }
    Mirror mirror(argv[1]);
    const pid_t child = fork();
    if (child == 0) {
        setenv("CHIRU_SOCKET", argv[1], 1);
        execvp(argv[2], argv + 2);
        std::perror(argv[2]);
        _exit(127);
    }
    mirror.run(child);
}
