// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/process.hpp"

#include "libclient/posix/epoll.hpp"
#include "libclient/posix/real.hpp"
#include "libclient/posix/socket.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace chiru::posix {

namespace {

bool is_set(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0' && std::strcmp(value, "0") != 0;
}

/// Outlives every descriptor that names it.
class Internal final : public Object {
public:
    Internal() : Object(Kind::Internal) {}

private:
    Pin pin_{*this};
};

constexpr int kHighestOwn = 16'384;

std::uint32_t* page_that_forks_wipe() {
    static std::uint32_t without = 1;  // then only fork()'s handlers tell
    const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    void* page = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || madvise(page, bytes, MADV_WIPEONFORK) != 0) return &without;
    return static_cast<std::uint32_t*>(page);
}

/// High enough to be out of the way of programs that close every low number or use select(), and
/// no higher: each fork() copies the kernel's table up to the highest.
int floor_of_own_descriptors() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 256) return 3;
    const auto highest = std::min<rlim_t>(limit.rlim_cur, kHighestOwn);
    return static_cast<int>(highest - 192);
}

}  // namespace

Settings Settings::from_environment() {
    Settings settings;
    settings.socket_path = shm::control_socket_path();
    settings.loopback = is_set("CHIRU_LOOPBACK");
    settings.required = is_set("CHIRU_REQUIRED");
    settings.verbose = is_set("CHIRU_VERBOSE");
    if (const char* spin = std::getenv("CHIRU_SPIN_US"))
        settings.spin = Micros(std::clamp(std::atoi(spin), 0, 1'000'000));
    return settings;
}

Process& Process::get() {
    // Never destroyed: the program's last threads and destructors may still call us.
    alignas(Process) static std::array<std::byte, sizeof(Process)> memory;
    static Process* process = new (memory.data()) Process;
    return *process;
}

Process::Process()
    : settings_(Settings::from_environment()),
      policy_(settings_.loopback),
      internal_(new Internal) {
    alive_ = page_that_forks_wipe();
    *alive_ = 1;
    pid_ = ::getpid();
    spin_now_ = settings_.spin;
    note_stderr();
    pthread_atfork([] { get().before_fork(); }, [] { get().after_fork_in_parent(); },
                   [] { get().after_fork_in_child(); });
}

/// A program may close descriptor 2, as many daemons do, and the next file it opens gets that
/// number: what we say must not end up in there.
bool Process::is_stderr_as_noted() const {
    struct stat now {};
    return has_stderr_ && ::fstat(STDERR_FILENO, &now) == 0 && now.st_dev == stderr_.st_dev &&
           now.st_ino == stderr_.st_ino;
}

void Process::say(const char* format, ...) {
    std::array<char, 512> text;
    std::va_list arguments;
    va_start(arguments, format);
    const int length = std::vsnprintf(text.data(), text.size(), format, arguments);
    va_end(arguments);
    if (length <= 0 || !is_stderr_as_noted()) return;
    const auto bytes = std::min(static_cast<std::size_t>(length), text.size() - 1);
    static_cast<void>(real().write(STDERR_FILENO, text.data(), bytes));
}

void Process::warn_once(bool& said, const char* text) {
    if (said) return;
    said = true;
    say("chiru: %s\n", text);
}

int Process::raised(int fd) {
    if (fd < 0) return fd;
    const int high = real().fcntl(fd, F_DUPFD_CLOEXEC, floor_of_own_descriptors());
    if (high < 0) return fd;
    real().close(fd);
    return high;
}

void Process::own(int fd) {
    if (fd >= 0) fd_table.install(fd, *internal_);
}

void Process::close_own(int fd) {
    if (fd < 0) return;
    fd_table.remove(fd);
    ::syscall(SYS_close, fd);  // no cancellation point: destructors come here
}

/// A session and its channel, with every descriptor of theirs raised and marked as ours.
int Process::open_channel() {
    const auto raise = [this](shm::UniqueFd& fd) {
        fd.reset(raised(fd.release()));
        return fd.get();
    };
    std::vector<int> descriptors;
    Result<std::shared_ptr<client::Session>, int> session = std::unexpected(EPIPE);
    const auto attach_over = [&](shm::UniqueFd control) {
        descriptors = {raise(control)};
        own(descriptors.front());
        session = client::Session::attach(std::move(control), program_invocation_short_name);
    };
    if (early_control_ >= 0) attach_over(shm::UniqueFd(std::exchange(early_control_, -1)));
    if (!session) {
        auto control = shm::connect_control(settings_.socket_path);
        if (!control) return control.error();
        attach_over(std::move(*control));
    }
    if (!session) return session.error();
    auto parts = (*session)->create_channel();
    if (!parts) return parts.error();
    descriptors.push_back(raise(parts->client_doorbell));
    for (shm::UniqueFd& doorbell : parts->shard_doorbells) descriptors.push_back(raise(doorbell));
    auto channel = client::Channel::open(*session, std::move(*parts));
    if (!channel) return channel.error();
    // Without it no thread could wake another one.
    if (nudge_ < 0) own(nudge_ = raised(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
    if (nudge_ < 0) return errno;
    channel_ = std::move(*channel);
    descriptors.push_back(channel_->poll_fd());
    for (const int fd : descriptors) own(fd);
    return 0;
}

const std::shared_ptr<client::Channel>& Process::attach() {
    if (channel_ != nullptr && !channel_->session().check_alive()) process();
    if (channel_ == nullptr) {
        if (const int error = open_channel(); error != 0) {
            if (!warned_absent_)
                say("chiru: no daemon at %s (%s): %s\n", settings_.socket_path.c_str(),
                    std::strerror(error),
                    settings_.required ? "its addresses are out of reach"
                                       : "using the kernel's TCP");
            warned_absent_ = true;
            return channel_;
        }
        warned_absent_ = false;
        for (Epoll* epoll : active_epolls_) epoll->session_came();
    }
    policy_.refresh(channel_->session().directory());
    return channel_;
}

/// The daemon is gone. What was on the channel has failed and was told so.
void Process::detach() {
    for (Epoll* epoll : active_epolls_) epoll->session_gone();
    for (const Waiter& waiter : free_waiters_) close_own(waiter.fd);
    free_waiters_.clear();
    policy_.forget();
    channel_.reset();
    wake_sleepers();
    say("chiru: the daemon is gone; its connections are reset\n");
}

void Process::process() {
    if (channel_ == nullptr) return;
    channel_->process();
    spread_edges();
    if (channel_->lost()) [[unlikely]] detach();
}

void Process::spread_edges() {
    while (client::Socket* changed = channel_->next_changed()) {
        const std::uint8_t edges = client::Channel::take_edges(*changed);
        if (changed->user == 0) continue;  // accepted, and not yet taken by accept()
        reinterpret_cast<Socket*>(changed->user)->edges(edges);
    }
}

Micros Process::spin_limit() const {
    if (channel_ == nullptr || settings_.spin == Micros::zero()) return Micros::zero();
    if (!channel_->spinning_helps()) return Micros::zero();
    return spin_now_;
}

bool Process::spun(bool successfully) {
    constexpr std::uint32_t kSkips = 16;
    if (successfully) {
        spin_now_ = settings_.spin;
        spins_skipped_ = 0;
    } else if (spin_now_ > Micros::zero()) {
        spin_now_ = spin_now_ / 2;
        spins_skipped_ = 0;
    } else if (++spins_skipped_ >= kSkips) {
        spin_now_ = settings_.spin;
    }
    return successfully;
}

Nap::Nap(Process& process)
    : process_(process),
      channel_(process.channel_),
      may_sleep_(channel_ == nullptr || channel_->arm()) {
    if (may_sleep_) ++process_.sleepers_;
}

Nap::~Nap() {
    if (!may_sleep_) return;
    if (process_.sleepers_ > 0) --process_.sleepers_;  // none in a child that a handler forked
    // Another channel, or none: the daemon died, or we are a child and it is the parent's.
    if (channel_ != nullptr && channel_ == process_.channel_) channel_->disarm();
}

Micros Process::sleep_limit() const {
    return channel_ == nullptr ? Micros::max() : channel_->sleep_limit();
}

void Process::wake_now() {
    wake_needed_ = false;
    const std::uint64_t one = 1;
    if (nudge_ >= 0) static_cast<void>(::syscall(SYS_write, nudge_, &one, sizeof one));
}

void Process::watch(int epoll_fd, std::uint64_t mark) {
    if (channel_ == nullptr) return;
    const auto add = [&](int fd, std::uint32_t events, std::uint64_t data) {
        epoll_event event{.events = events, .data = {.u64 = data}};
        static_cast<void>(real().epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event));
    };
    add(channel_->doorbell_fd(), EPOLLIN | EPOLLET, mark);
    add(channel_->session().control_fd(), EPOLLRDHUP, mark + 1);
    watch_nudge(epoll_fd, mark);
}

void Process::watch_nudge(int epoll_fd, std::uint64_t mark) {
    epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = mark}};
    static_cast<void>(real().epoll_ctl(epoll_fd, EPOLL_CTL_ADD, nudge_, &event));
}

void Process::check_daemon() {
    if (channel_ != nullptr) static_cast<void>(channel_->session().check_alive());
}

void Process::unwatch(int epoll_fd) {
    if (channel_ == nullptr) return;
    // The nudge stays: it wakes whoever sleeps in this set while the session ends.
    for (const int fd : {channel_->doorbell_fd(), channel_->session().control_fd()})
        static_cast<void>(real().epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, nullptr));
}

Waiter Process::take_waiter() {
    if (!free_waiters_.empty()) {
        const Waiter waiter = free_waiters_.back();
        free_waiters_.pop_back();
        return waiter;
    }
    Waiter waiter{.fd = raised(::epoll_create1(EPOLL_CLOEXEC)), .channel = channel_};
    if (waiter.fd < 0) return waiter;
    own(waiter.fd);
    watch(waiter.fd, kWaiterMark);
    return waiter;
}

void Process::give_waiter(const Waiter& waiter) {
    if (waiter.fd < 0) return;
    if (waiter.channel.lock() == channel_ && channel_ != nullptr) {
        free_waiters_.push_back(waiter);
        return;
    }
    close_own(waiter.fd);
}

void Process::say_farewell() {
    constexpr Micros kPatience{50'000};
    if (channel_ != nullptr) channel_->say_farewell(kPatience);
}

void Process::remove_epoll(Epoll& epoll) { std::erase(active_epolls_, &epoll); }

int Process::placeholder(bool close_on_exec) {
    if (placeholder_ < 0) {
        placeholder_ = raised(real().socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (placeholder_ < 0) return -1;
        own(placeholder_);
    }
    return real().fcntl(placeholder_, close_on_exec ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
}

bool Process::is_mine() const { return ::getpid() == pid_; }

void Process::before_fork() {
    fork_locked_ = !BiasedLock::held_by_me();  // else a signal handler forks in the midst of us
    if (fork_locked_) lock.lock();
    ++forks_;
    if (!fork_locked_) return;
    for (Epoll* epoll : active_epolls_) epoll->share();
}

void Process::after_fork_in_parent() {
    if (fork_locked_) lock.unlock();
}

void Process::after_fork_in_child() {
    lock.reset_after_fork();
    if (!forked() && ::getpid() == pid_) return;
    lock.lock();
    *alive_ = 1;
    pid_ = ::getpid();
    sleepers_ = 0;
    wake_needed_ = false;
    for (Epoll* epoll : active_epolls_) epoll->forget_session();
    for (const Waiter& waiter : free_waiters_) close_own(waiter.fd);
    free_waiters_.clear();
    const std::shared_ptr<client::Channel> parents = std::move(channel_);
    if (parents != nullptr) leave_to_parent(*parents);
    close_own(nudge_);
    nudge_ = -1;
    close_own(std::exchange(early_control_, -1));
    if (inherited_listeners_ != 0) connect_early();
    lock.unlock();
}

/// The daemon knows a client by the user it had when it connected. A child that inherits a
/// listener may be about to become another user, as the workers of most servers do; so it connects
/// while it is still its parent's, and attaches when it needs to.
void Process::connect_early() {
    auto control = shm::connect_control(settings_.socket_path);
    if (!control) return;
    early_control_ = raised(control->release());
    own(early_control_);
}

void Process::leave_to_parent(client::Channel& parents) {
    parents.session().disown();
    policy_.forget();
    inherited_listeners_ = 0;
    fd_table.for_each(0, FdTable::kEnd - 1, [&](int, Object& object) {
        if (object.kind() != Object::Kind::Socket) return;
        auto& socket = static_cast<Socket&>(object);
        const bool was = socket.is_inherited();
        socket.inherited();
        if (!was && socket.is_inherited()) ++inherited_listeners_;
    });
    // The listeners live as long as somebody holds the parent's control socket; so they survive
    // a parent that opened them and exits, as every daemon's does.
    if (inherited_listeners_ == 0) return;
    const int lease = real().fcntl(parents.session().control_fd(), F_DUPFD_CLOEXEC,
                                   floor_of_own_descriptors());
    if (lease < 0) return;
    leases_.push_back(lease);
    own(lease);
}

void Process::listener_settled() {
    if (inherited_listeners_ == 0 || --inherited_listeners_ != 0) return;
    for (const int lease : leases_) close_own(lease);
    leases_.clear();
}

}  // namespace chiru::posix
