// SPDX-License-Identifier: Apache-2.0
//
// A channel: the rings between one client thread and every shard, and the sockets on them.
//
//   connect, send, ...  ->  submission rings  ->  shards
//   process()           <-  completion rings  <-  shards      updates sockets, notes their edges
//   take_changed()      ->  the sockets that have new edges, each once, whatever their number
//
// A submission is visible to a shard that is awake at once. One that sleeps is woken by flush(),
// once a burst: process(), arm() and wait() do that by themselves, so a loop around them need not;
// a program that sends and then does something else for a while must.
//
// One thread uses a channel at a time; a program with several brings its own lock. Whoever sleeps
// while others use the channel lets go of the lock between arm() and disarm(). Several may be
// asleep at once; each is woken, and whoever runs process() first passes on what others wait for.
//
// Nothing here throws, ends the program, blocks (but wait()) or believes the daemon: a ring with
// nonsense in it costs the session, as the daemon's death does.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "libclient/paged_pool.hpp"
#include "libclient/session.hpp"
#include "libclient/socket.hpp"
#include "libclient/tx_arena.hpp"
#include "shm/channel.hpp"
#include "shm/doorbell.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace chiru::client {

/// Payload that a socket received and nobody has released yet; or that a program holds.
struct RxChunk {
    std::uint64_t offset = 0;  ///< of the first unread byte, in its arena
    std::uint32_t length = 0;  ///< unread bytes
    std::uint32_t next = kNone;
    std::uint32_t slot = 0;
    std::uint32_t generation = 1;  ///< of the token
    shm::ArenaId arena{};
    std::uint8_t shard = 0;
    std::uint8_t lent = 0;  ///< 1: a program holds it, by token
    std::uint32_t of_datagram = 0;  ///< 1: goes back by ReleaseDatagrams

    /// Names a slice that was just received. The generation goes on, so that old tokens stay stale.
    void hold(const shm::Slice& slice, std::uint32_t in_slot, std::uint8_t from_shard,
              bool datagram) {
        offset = slice.offset;
        length = slice.length;
        next = kNone;
        slot = in_slot;
        arena = slice.arena;
        shard = from_shard;
        lent = 0;
        of_datagram = datagram ? 1 : 0;
    }
};
static_assert(sizeof(RxChunk) == 32);

/// Payload under way: part of a TX run, or of a program's buffer.
struct TxExtent {
    std::uint64_t offset = 0;    ///< in the TX arena
    std::uint32_t capacity = 0;  ///< bytes of the run; 0: the memory is `buffer`'s
    std::uint32_t filled = 0;    ///< submitted
    std::uint32_t returned = 0;  ///< of those, acknowledged
    std::uint32_t next = kNone;
    std::uint32_t buffer = kNone;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(TxExtent) == 32);

/// A program's own send buffer, shared by any number of sends.
struct TxBuffer {
    TxRun run;
    std::uint32_t uses = 0;  ///< sends under way, and one while the program holds it
    std::uint32_t next = kNone;
    std::uint32_t generation = 1;
    std::uint32_t held = 0;  ///< 1: the program may still name it
};

/// A datagram that a socket received and nobody has read yet.
struct RxDatagram {
    Endpoint remote;
    IpAddress local;             ///< if the socket asked for it (want_destination)
    std::uint16_t interface = 0; ///< 1 + the directory's index; 0: from this host
    std::uint32_t first = kNone; ///< its chunks
    std::uint32_t last = kNone;
    std::uint32_t bytes = 0;
    SocketName socket;           ///< which may be closed before all its slices came
    std::uint32_t next = kNone;
    std::uint8_t ttl = 0;
    std::uint8_t tos = 0;
    bool has_local = false;
};

/// A datagram under way; its place in the pool is the cookie that comes back.
struct TxDatagram {
    TxRun run;
    SocketName socket;
    std::uint32_t charge = 0;  ///< of the socket's tx_bytes
    std::uint32_t buffer = kNone;
    std::uint32_t next = kNone;
    std::uint8_t shard = 0;
    bool under_way = false;
};

/// Where a datagram goes and how.
struct DatagramTarget {
    Endpoint remote;
    IpAddress source;               ///< unspecified: the socket's, or the route's choice
    std::uint16_t interface = 0;    ///< 1 + the directory's index; 0: the route's choice
    std::uint16_t segment_bytes = 0;
    std::uint16_t flags = 0;        ///< shm::SubmissionFlag bits
    std::uint8_t tos = 0;
    std::uint8_t ttl = 0;           ///< 0: the default
};

/// An option set before there was a connection to carry it.
struct EarlyOption {
    shm::OptionBody body;
    std::uint32_t next = kNone;
};

/// Names a lent chunk or a send buffer.
struct Token {
    std::uint32_t index = kNone;
    std::uint32_t generation = 0;
};

/// A piece of received payload, lent to the program until give_back(token).
struct Lent {
    std::span<const std::byte> bytes;
    Token token;
};

struct Room {
    std::span<std::byte> bytes;
    Token token;
};

class Channel {
public:
    static Result<std::unique_ptr<Channel>, int> open(std::shared_ptr<Session> session);
    /// Over parts that are already there.
    static Result<std::unique_ptr<Channel>, int> open(std::shared_ptr<Session> session,
                                                      ChannelParts parts);
    /// Ends the channel: its connections are reset by the shards.
    ~Channel();
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    // Sockets. All errors are errno values, with the meaning POSIX gives them.

    /// A fresh socket, or nullptr if there is no memory.
    Socket* create(std::uint64_t user);
    /// nullptr if the name is stale.
    Socket* find(SocketName name);

    /// Starts to connect; kWritable or kError follows. `local` as BindReply gave it, or all zero.
    Result<void, int> connect(Socket& socket, const Endpoint& remote, const Endpoint& local = {});
    /// Takes part in a listener that the session has bound and told to listen. `at_once` bounds
    /// the connections that wait here for accept(), for each shard.
    Result<void, int> listen(Socket& socket, const shm::BindReply& bound,
                             std::uint32_t at_once = kDefaultCredit);
    /// A connected socket with `user` 0, or EAGAIN. Its first edges follow now, never before.
    Result<Socket*, int> accept(Socket& listener);

    /// Copies as much of `bytes` as there is room for. EAGAIN: none, a kWritable edge will follow.
    /// EPIPE after shutdown or the connection's end. `more`: a partial segment may wait.
    Result<std::size_t, int> send(Socket& socket, std::span<const std::byte> bytes,
                                  bool more = false);
    /// How much send() would take now, roughly; 0 arranges for a kWritable edge.
    std::size_t send_room(Socket& socket);

    /// Copies received bytes out. 0 is the end of data (or an empty `bytes`); EAGAIN: none yet.
    Result<std::size_t, int> receive(Socket& socket, std::span<std::byte> bytes);
    /// The same, but the bytes stay; `skip` leaves out the first ones.
    Result<std::size_t, int> peek(Socket& socket, std::span<std::byte> bytes,
                                  std::size_t skip = 0);
    /// Drops up to `bytes` received bytes; as receive().
    Result<std::size_t, int> discard(Socket& socket, std::size_t bytes);

    /// Lends received payload in place; as receive(), the count is of `pieces`.
    Result<std::size_t, int> borrow(Socket& socket, std::span<Lent> pieces);
    /// EINVAL if the token is stale.
    Result<void, int> give_back(Token token);

    /// A send buffer of at least `bytes`, at most kTxBlockBytes. ENOBUFS, EMSGSIZE.
    Result<Room, int> allocate(std::size_t bytes);
    /// Sends part of a buffer, without a copy; all of it or EAGAIN. The bytes must not change until
    /// every send of them is acknowledged, which is when send_room()'s limit has them back.
    Result<void, int> send_buffer(Socket& socket, Token buffer, std::size_t offset,
                                  std::size_t length, bool more = false);
    /// The program names the buffer no longer. Its memory is free once nothing sends from it.
    Result<void, int> free_buffer(Token buffer);

    // Datagrams.

    /// A fresh socket becomes a UDP socket with a name of its own. `flags` are shm::BindFlag bits;
    /// `receive_buffer` bytes, 0: the default.
    Result<void, int> open_datagrams(Socket& socket, const Endpoint& local, std::uint32_t flags,
                                     std::uint32_t receive_buffer = 0);
    /// Sets the peer; nothing dissolves.
    Result<void, int> connect_datagrams(Socket& socket, const Endpoint& remote,
                                        std::uint16_t interface = 0);
    /// Sends one datagram (with segment_bytes several), put together from the pieces: all or
    /// EAGAIN, and then a kWritable edge will follow. EMSGSIZE: larger than any.
    Result<std::size_t, int> send_datagram(Socket& socket,
                                           std::span<const std::span<const std::byte>> pieces,
                                           const DatagramTarget& target);
    /// The same from a send buffer, without a copy.
    Result<std::size_t, int> send_datagram_buffer(Socket& socket, Token buffer,
                                                  std::size_t offset, std::size_t length,
                                                  const DatagramTarget& target);
    /// The oldest datagram, or EAGAIN, or the pending error. Valid until the next call.
    Result<const RxDatagram*, int> next_datagram(Socket& socket);
    /// Copies as much of it as there is room for.
    std::size_t copy_datagram(const RxDatagram& datagram,
                              std::span<const std::span<std::byte>> room) const;
    /// It was read, or is not wanted.
    void drop_datagram(Socket& socket);
    /// Lends its payload in place and takes it off the queue. EMSGSIZE: more pieces than `pieces`.
    Result<std::size_t, int> borrow_datagram(Socket& socket, std::span<Lent> pieces);
    Result<void, int> set_membership(Socket& socket, const IpAddress& group,
                                     std::uint16_t interface, bool join);
    void set_datagram_option(Socket& socket, shm::DatagramOption option, std::uint64_t value);

    Result<void, int> shutdown_send(Socket& socket);
    void shutdown_receive(Socket& socket);
    /// Gives the socket back; what was sent still arrives. A listener leaves its listener, and what
    /// was not accepted is for others who share it; unbind is the session's.
    void close(Socket& socket);
    /// The same with a reset.
    void abort(Socket& socket);

    /// Before there is a connection, the value is kept until then; a listener's go to the
    /// connections it accepts. EINVAL: no such option, or a value out of range.
    Result<void, int> set_option(Socket& socket, shm::ConnectionOption option,
                                 std::uint64_t value);
    void set_send_limit(Socket& socket, std::uint32_t bytes);
    /// The pending error, 0 if none; the next call answers 0.
    int take_error(Socket& socket);
    Result<shm::ConnectionInfo, int> info(const Socket& socket);
    /// A value that was set before there was a connection; 0 if it was not.
    std::uint64_t early_option(const Socket& socket, shm::ConnectionOption option);

    // Progress.

    /// Takes all completions there are and wakes shards that have work; never waits. Returns how
    /// many completions there were.
    std::size_t process();
    /// Wakes the shards that have work of ours and sleep.
    void flush();
    /// The process is about to end in order: hands over all that was said, waiting for room at
    /// most `limit`, and lets the daemon close what is open. If there is no room it says nothing,
    /// and the daemon resets: a FIN would hide that bytes are missing.
    void say_farewell(Micros limit);
    /// The next socket with edges, once for each set of edges; `edges` is cleared by the caller,
    /// with take_edges().
    Socket* next_changed();
    bool has_changed() const { return changed_first_ != kNone; }
    static std::uint8_t take_edges(Socket& socket) {
        const std::uint8_t edges = socket.edges;
        socket.edges = 0;
        return edges;
    }

    // Sleeping. Either wait(), or in a program's own kernel epoll set: doorbell_fd() for
    // EPOLLIN | EPOLLET and session().control_fd() for EPOLLRDHUP; poll_fd() stands for both and
    // may be watched level-triggered, also by poll() and select().

    /// Announces sleep. False: there is something to process, or the session is lost; do not
    /// sleep. True: sleep no longer than sleep_limit(), then disarm().
    bool arm();
    void disarm();
    /// How long a sleep may last without missing room in a ring; kForever nearly always.
    Micros sleep_limit() const;
    int doorbell_fd() const { return doorbell_.get(); }
    int poll_fd() const { return epoll_.get(); }
    /// Makes poll_fd() unreadable again, after a sleep on it.
    void settle_poll_fd();

    /// Processes until something happened, `timeout` is over (negative: never) or a signal came
    /// (EINTR). First it spins, see set_spin(). Returns the completions processed.
    Result<std::size_t, int> wait(Micros timeout);
    /// How long wait() polls before it sleeps. It does not at all while a shard shares our CPU,
    /// for then nothing can come before we let go of it.
    void set_spin(Micros spin) { spin_ = spin; }
    /// Would spinning help: is no shard on the CPU of this thread?
    bool spinning_helps() const;

    Session& session() { return *session_; }
    /// Lost with the session; every socket has failed.
    bool lost() const { return failed_; }
    std::uint32_t socket_count() const { return sockets_.live(); }

    static constexpr std::uint32_t kDefaultCredit = 64;
    static constexpr std::uint32_t kFirstRoom = 256u << 10;  ///< of a socket to send
    static constexpr std::uint32_t kMinSendLimit = 4096;
    /// Below the mark of unsent bytes send() takes so many at least, as the kernel fills a buffer.
    static constexpr std::uint32_t kLeastQueued = 16u << 10;
    static constexpr std::uint32_t kDatagramSendLimit = 256u << 10;
    static constexpr Micros kForever = Micros::max();
    static constexpr Micros kDefaultSpin{20};

private:
    struct Lane;
    struct Listener;

    Channel(std::shared_ptr<Session> session, ChannelParts parts);

    // channel.cpp: rings, edges, sleep
    int watch();
    std::size_t process_lane(Lane& lane);
    void fail_all();
    bool submit(Lane& lane, const shm::Submission& submission);
    void submit_surely(Lane& lane, const shm::Submission& submission);
    void push_backlog(Lane& lane);
    void mark(Socket& socket, std::uint8_t edges);
    void wait_for_room(Socket& socket);
    void wake_waiting();
    void leave_list(Socket& socket, SocketFlag list);
    std::size_t spin(Micros limit);
    int sleep(Micros limit);
    void leave_sleepers();

    // completions.cpp: what shards say
    void handle(Lane& lane, const shm::Completion& completion);
    void on_accepted(Lane& lane, const shm::Completion& completion);
    Socket* answered(Lane& lane, const shm::Completion& completion);
    void on_opening(Lane& lane, const shm::Completion& completion);
    void on_connected(Lane& lane, const shm::Completion& completion);
    void on_received(Lane& lane, Socket* socket, const shm::Completion& completion);
    void on_sent(Socket& socket, std::uint32_t bytes);
    void on_launched(Socket& socket, const shm::SentBody& sent);
    void offer_room(Socket& socket);
    void on_closed(Socket& socket, const shm::Completion& completion);
    Socket* socket_of(Lane& lane, const shm::Completion& completion);
    Socket* connecting(const Lane& lane, std::uint64_t cookie);
    bool name(Lane& lane, Socket& socket, const shm::Completion& completion);
    void fail(Socket& socket, int error);
    void end_with(Socket& socket, int error);
    void forget_connection(Socket& socket);

    // payload.cpp: buffers of either direction
    int send_refusal(Socket& socket);
    std::size_t room_of(Socket& socket);
    void note_queued(Socket& socket, std::uint32_t bytes);
    std::size_t send_some(Lane& lane, Socket& socket, std::span<const std::byte> bytes, bool more);
    void begin_empty(Lane& lane, Socket& socket);
    TxExtent* extent_for(Socket& socket, std::size_t bytes);
    TxExtent* append_extent(Socket& socket, const TxExtent& extent);
    void pop_extent(Socket& socket);
    void drop_sent(Socket& socket);
    TxBuffer* find_buffer(Token token);
    void unuse(std::uint32_t buffer);
    Result<std::size_t, int> nothing_received(Socket& socket);
    const std::byte* at(const RxChunk& chunk) const;
    void pop_chunk(Socket& socket);
    void drop_received(Socket& socket);
    void forget_received(Socket& socket);
    void release_chunk(std::uint32_t index);
    void release_slot(Lane& lane, shm::ArenaId arena, std::uint32_t slot, bool of_datagram);
    void push_releases(Lane& lane);

    // datagrams.cpp
    void on_datagram(Lane& lane, const shm::Completion& completion);
    void on_datagram_more(Lane& lane, const shm::Completion& completion);
    void on_datagram_error(const shm::Completion& completion);
    void on_datagrams_sent(Lane& lane, const shm::Completion& completion);
    void add_slice(Lane& lane, const shm::Slice& slice);
    void end_of_datagram(Lane& lane);
    Socket* datagrams_of(const shm::Completion& completion);
    int may_send_datagram(Socket& socket, std::size_t bytes, const DatagramTarget& target,
                          Lane*& lane);
    void submit_datagram(Lane& lane, Socket& socket, std::uint32_t cookie, std::uint64_t offset,
                         std::size_t bytes, const DatagramTarget& target);
    void free_datagram(std::uint32_t index);
    void drop_datagrams(Socket& socket);
    void close_datagrams(Socket& socket);

    // connections.cpp
    void submit_connect(Socket& socket);
    void submit_op(Socket& socket, shm::SubmissionOp op);
    void end(Socket& socket, shm::SubmissionOp how);
    void free_socket(Socket& socket);
    void leave_listener(Socket& socket);
    void give_credit(std::uint32_t listener, Lane& lane, std::uint32_t count,
                     std::uint32_t taken);
    void return_unaccepted(Socket& socket);
    void apply_options(Socket& socket, std::uint32_t options);
    void free_options(Socket& socket);
    void submit_option(Socket& socket, const shm::OptionBody& body);

    std::shared_ptr<Session> session_;
    std::uint32_t number_ = 0;
    shm::Region region_;
    shm::UniqueFd doorbell_;
    shm::UniqueFd epoll_;
    shm::Channel* shared_ = nullptr;
    std::vector<std::unique_ptr<Lane>> lanes_;
    std::optional<shm::DoorbellSleeper> sleeper_;
    std::uint32_t sleepers_ = 0;
    std::uint32_t cpu_ = shm::kNoCpu;
    Micros spin_ = kDefaultSpin;

    PagedPool<Socket> sockets_;
    PagedPool<RxChunk> chunks_;
    PagedPool<TxExtent> extents_;
    PagedPool<TxBuffer> buffers_;
    PagedPool<RxDatagram> rx_datagrams_;
    PagedPool<TxDatagram> tx_datagrams_;
    PagedPool<EarlyOption> options_;
    TxArena arena_;
    std::vector<Listener> listeners_;
    std::unordered_map<std::uint32_t, std::uint32_t> listener_by_id_;
    std::uint32_t changed_first_ = kNone;
    std::uint32_t changed_last_ = kNone;
    std::uint32_t waiting_first_ = kNone;
    std::uint32_t waiting_last_ = kNone;
    std::uint32_t next_shard_ = 0;
    std::uint32_t empty_polls_ = 0;
    std::uint32_t most_room_ = kFirstRoom;  ///< one socket's share of the send memory
    bool failed_ = false;
};

}  // namespace chiru::client
