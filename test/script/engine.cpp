// SPDX-License-Identifier: Apache-2.0
#include "test/script/engine.hpp"

#include "test/script/settings.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace chiru::script {

namespace {

using shm::CompletionOp;
using shm::SubmissionOp;

constexpr shm::ListenerId kListener{9};
constexpr std::uint64_t kUser = 77;

std::string error_name(int error) {
    const char* name = strerrorname_np(error);
    return name != nullptr ? name : "0";
}

std::uint64_t value_of(const std::string& text) {
    try {
        return std::stoull(text);
    } catch (const std::exception&) {
        throw std::runtime_error("'" + text + "' is not a number");
    }
}

const std::string& word(const std::vector<std::string>& words, std::size_t i) {
    if (i >= words.size()) throw std::runtime_error("'" + words[0] + "' wants more words");
    return words[i];
}

/// What of Fast Open was wished for before there was a socket; 0: nothing.
std::uint64_t fast_open_of(const std::vector<shm::OptionBody>& wishes) {
    for (const shm::OptionBody& wish : wishes)
        if (wish.option == shm::ConnectionOption::FastOpen) return wish.value;
    return 0;
}

std::string told(const std::string& expected, const std::string& got) {
    return expected == got ? "" : "got " + got;
}

}  // namespace

EngineTarget::EngineTarget(const Wire& wire, const std::vector<Setting>& settings) {
    sim::HostOptions options;
    options.rx_slots = 2048;
    options.max_rx_slots = 1024;
    options.tx_arena_bytes = 1u << 20;
    options.vlan = wire.vlan;
    options.tcp = laboratory();
    for (const Setting& setting : settings) apply(setting, options.tcp);
    host_ = std::make_unique<sim::Host>(options);
    for (std::size_t i = 0; i < host_->tx_arena_bytes(); ++i) host_->tx_arena()[i] = text_byte(i);

    ends_.stack_mac = test::mac(options.number);
    ends_.peer_mac = test::mac(99);
    ends_.stack = wire.family == 4 ? host_->v4() : host_->v6();
    ends_.peer = test::ip(wire.family == 4 ? "10.7.0.99" : "fd07::99");
    ends_.vlan = wire.vlan;
    pass(std::chrono::seconds(3));  // duplicate address detection
}

Tolerance EngineTarget::tolerance() const {
    using std::chrono::milliseconds;
    return {Micros{0}, Micros{0}, milliseconds(2), 0.01, Micros{0}};
}

void EngineTarget::inject(const Frame& frame) {
    host_->receive(frame, now_);
    pump();
}

void EngineTarget::pump() {
    bool asked = false;
    for (Frame& frame : host_->turn(now_)) {
        if (const auto answer = neighbor_answer(frame, ends_)) {
            host_->receive(*answer, now_);
            asked = true;
        } else {
            sent_.push_back({now_, std::move(frame)});
        }
    }
    take_completions();
    if (asked) pump();
}

std::optional<Arrived> EngineTarget::next_frame(Instant deadline) {
    pump();
    while (sent_.empty() && now_ < deadline) {
        now_ = std::clamp(host_->next_deadline(), now_ + Micros(1), deadline);
        pump();
    }
    if (sent_.empty()) return std::nullopt;
    Arrived oldest = std::move(sent_.front());
    sent_.pop_front();
    return oldest;
}

void EngineTarget::pass(Micros time) {
    const Instant end = now_ + time;
    while (next_frame(end)) {
    }
}

// ---- the program ---------------------------------------------------------------------------

void EngineTarget::take_completions() {
    for (const shm::Completion& c : host_->take_completions()) {
        Socket& s = socket_of(c);
        switch (c.op) {
            case CompletionOp::Connected: s.accepted = true; break;
            case CompletionOp::PeerClosed: s.peer_closed = true; break;
            case CompletionOp::Closed: s.closed = c.error; break;
            case CompletionOp::Received:
                for (std::size_t i = 0; i < c.count; ++i) s.unread.push_back(c.slices[i]);
                break;
            default: break;
        }
        const bool fresh = c.op == CompletionOp::Accepted || c.op == CompletionOp::Connected;
        if (!fresh) continue;
        for (const shm::OptionBody& wish : s.wishes) {
            shm::Submission submission;
            submission.op = SubmissionOp::SetOption;
            submission.connection = s.name;
            submission.option = wish;
            submit(submission);
        }
    }
}

EngineTarget::Socket& EngineTarget::socket_of(const shm::Completion& c) {
    for (Socket& s : sockets_)
        if (s.named && s.name == c.connection) return s;
    if (c.op == CompletionOp::Accepted) {
        Socket made;
        made.passive = true;
        made.wishes = listener_wishes_;
        sockets_.push_back(std::move(made));
    }
    Socket& s = sockets_.empty() ? sockets_.emplace_back() : sockets_.back();
    s.name = c.connection;
    s.named = c.connection.generation != 0;
    return s;
}

EngineTarget::Socket& EngineTarget::current() {
    if (current_ >= sockets_.size()) throw std::runtime_error("there is no connection");
    return sockets_[current_];
}

void EngineTarget::submit(shm::Submission& submission) {
    const Violation violation = host_->submit(submission, now_);
    if (violation != Violation::None) throw std::runtime_error(to_string(violation));
}

void EngineTarget::submit(Socket& socket, SubmissionOp op) {
    shm::Submission s;
    s.op = op;
    s.connection = socket.name;
    submit(s);
}

void EngineTarget::start_listening() {
    const auto fast_open = static_cast<std::uint32_t>(fast_open_of(listener_wishes_));
    host_->stack().listen(kListener, Endpoint{IpAddress(), kPort}, 0,
                          {.backlog = 16, .fast_open = fast_open});
    host_->stack().share_listener(kListener, sim::Host::kSession);
    shm::Submission s;
    s.op = SubmissionOp::AcceptCredit;
    s.credit = {kListener, 100};
    submit(s);
}

void EngineTarget::connect(std::uint16_t peer_port) {
    Socket made;
    made.wishes = listener_wishes_;
    const bool fast_open = fast_open_of(made.wishes) != 0;
    sockets_.push_back(std::move(made));
    current_ = sockets_.size() - 1;
    shm::Submission s;
    s.op = SubmissionOp::Connect;
    s.user = kUser;
    s.connect = {};
    s.connect.remote = {ends_.peer, peer_port};
    if (fast_open)
        s.connect.options = 1u << static_cast<unsigned>(shm::ConnectionOption::FastOpen);
    submit(s);
}

std::string EngineTarget::accept(const std::string& result) {
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
        if (!sockets_[i].passive || sockets_[i].accepted) continue;
        if (result == "none") return "a connection waits";
        sockets_[i].accepted = true;
        current_ = i;
        return {};
    }
    return told(result, "none");
}

std::string EngineTarget::connected(const std::string& result) {
    const Socket& s = current();
    if (s.accepted) return told(result, "yes");
    return told(result, s.closed ? error_name(*s.closed) : "none");
}

std::string EngineTarget::send(const std::vector<std::string>& words) {
    Socket& s = current();
    if (word(words, 1)[0] == 'E')
        return told(words[1], !s.closed && !s.shut_down      ? "room"
                              : s.closed.value_or(0) == 0 ? "EPIPE"
                                                             : error_name(*s.closed));
    shm::Submission submission;
    submission.op = SubmissionOp::Send;
    submission.connection = s.name;
    submission.count = 1;
    submission.flags = words.size() > 2 && words[2] == "more" ? shm::kMoreToCome : 0;
    submission.slices = {};
    const auto bytes = static_cast<std::uint32_t>(value_of(words[1]));
    submission.slices[0] = {s.written, bytes, shm::kTxArena, 0};
    s.written += bytes;
    submit(submission);
    return {};
}

/// What recv() would return, but for the bytes themselves.
std::string EngineTarget::receive(const std::string& result) {
    Socket& s = current();
    std::size_t there = 0;
    for (const shm::Slice& slice : s.unread) there += slice.length;
    there -= s.slice_done;
    if (there == 0) {
        if (s.closed.value_or(0) != 0)  // told once
            return told(result, error_name(std::exchange(*s.closed, 0)));
        return told(result, s.peer_closed || s.closed ? "end" : "none");
    }
    if (result[0] < '0' || result[0] > '9' || there < value_of(result))
        return "got " + std::to_string(there);
    return consume(s, value_of(result));
}

std::string EngineTarget::consume(Socket& s, std::size_t bytes) {
    while (bytes > 0) {
        const shm::Slice slice = s.unread.front();
        const std::size_t piece = std::min<std::size_t>(bytes, slice.length - s.slice_done);
        const auto text = host_->bytes_of(slice).subspan(s.slice_done, piece);
        for (const std::byte byte : text)
            if (byte != text_byte(s.read++))
                return "wrong text at " + std::to_string(s.read - 1);
        s.slice_done += static_cast<std::uint32_t>(piece);
        bytes -= piece;
        if (s.slice_done < slice.length) break;
        s.slice_done = 0;
        s.unread.pop_front();
        shm::Submission release = sim::Host::release_of(slice);
        submit(release);
    }
    return {};
}

void EngineTarget::set_option(const std::string& name, std::uint64_t value) {
    const shm::OptionBody body{connection_option(name), 0, value};
    const bool next = body.option == shm::ConnectionOption::FastOpen;  // too late for this one
    if (next || current_ >= sockets_.size() || !sockets_[current_].accepted) {
        listener_wishes_.push_back(body);
        return;
    }
    shm::Submission s;
    s.op = SubmissionOp::SetOption;
    s.connection = sockets_[current_].name;
    s.option = body;
    submit(s);
}

std::string EngineTarget::call(const std::vector<std::string>& words, std::uint16_t peer_port) {
    const std::string& what = words[0];
    if (what == "listen") start_listening();
    else if (what == "connect") connect(peer_port);
    else if (what == "accept") return accept(words.size() > 1 ? words[1] : "yes");
    else if (what == "connected") return connected(words.size() > 1 ? words[1] : "yes");
    else if (what == "send") return send(words);
    else if (what == "recv") return receive(word(words, 1));
    else if (what == "use") current_ = value_of(word(words, 1)) - 1;
    else if (what == "option") set_option(word(words, 1), value_of(word(words, 2)));
    else if (what == "close") submit(current(), current().unread.empty() ? SubmissionOp::Close
                                                                         : SubmissionOp::Abort);
    else if (what == "abort") submit(current(), SubmissionOp::Abort);
    else if (what == "shutdown") {
        submit(current(), SubmissionOp::Shutdown);
        current().shut_down = true;
    } else return "'" + what + "' is no call";
    pump();
    return {};
}

std::string EngineTarget::look(const std::vector<std::string>& words) {
    if (words[0] == "state") {
        pump();
        return told(word(words, 1), to_string(host_->block(current().name.index).state));
    }
    const std::string& name = word(words, 1);
    for (std::size_t i = 0; i < shm::kCounters.size(); ++i)
        if (shm::kCounters[i].name == name)
            return told(word(words, 2), std::to_string(host_->count(shm::Counter(i))));
    return "no counter " + name;
}

std::string EngineTarget::leftovers() {
    for (Socket& s : sockets_) s.unread.clear();
    host_->stack().detach_session(sim::Host::kSession, now_);
    host_->stack().unlisten(kListener, now_);  // else what nobody accepted waits for another program
    for (int i = 0; i < 400 && host_->tables().connections_live > 0; ++i)
        pass(std::chrono::seconds(1));
    pass(Micros(0));
    host_->flush_device();
    if (host_->slots_out() > 0) return std::to_string(host_->slots_out()) + " buffers not back";
    if (host_->tables().connections_live > 0) return "a connection stays for ever";
    if (!host_->stack().session_gone(sim::Host::kSession)) return "the session stays for ever";
    return {};
}

std::optional<std::string> play_on_engine(const Script& script, const Wire& wire) {
    EngineTarget target(wire, script.settings);
    if (auto wrong = Player(script, target).play()) return wrong;
    if (std::string left = target.leftovers(); !left.empty()) return "at the end: " + left;
    return std::nullopt;
}

}  // namespace chiru::script
