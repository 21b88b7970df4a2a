// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include "stack/wire/arp.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/tcp.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>
#include <sstream>

namespace chiru::sim {

namespace {

constexpr std::uint32_t kPeer = 0x0a07'0063;  // 10.7.0.99
constexpr std::uint32_t kOurs = 0x0a07'0001;
constexpr std::size_t kEthernet = 14, kIp = 20;
constexpr shm::ListenerId kListener{9};

void put(Frame& frame, std::initializer_list<unsigned> bytes) {
    for (const unsigned b : bytes) frame.push_back(static_cast<std::byte>(b));
}

void put32(Frame& frame, std::uint32_t value) {
    put(frame, {value >> 24, value >> 16 & 255, value >> 8 & 255, value & 255});
}

std::uint32_t get32(const Frame& frame, std::size_t at) {
    be32 value;
    std::memcpy(&value, frame.data() + at, 4);
    return value;
}

std::uint16_t get16(const Frame& frame, std::size_t at) {
    be16 value;
    std::memcpy(&value, frame.data() + at, 2);
    return value;
}

void ethernet(Frame& frame, unsigned type) {
    put(frame, {2, 0, 0, 0, 0, 1});
    put(frame, {2, 0, 0, 0, 0, 99});
    put(frame, {type >> 8, type & 255});
}

Frame arp_reply() {
    Frame frame;
    ethernet(frame, 0x0806);
    put(frame, {0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 99});
    put32(frame, kPeer);
    put(frame, {2, 0, 0, 0, 0, 1});
    put32(frame, kOurs);
    return frame;
}

bool is_tcp(const Frame& frame) {
    return frame.size() >= kEthernet + kIp + 20 && get16(frame, 12) == 0x0800 &&
           std::to_integer<int>(frame[kEthernet + 9]) == 6;
}

/// A segment of the stack's in the notation, for messages.
std::string flag_letters(std::uint8_t flags) {
    std::string text;
    for (const auto& [bit, letter] : {std::pair{wire::kSyn, 'S'}, {wire::kFin, 'F'},
                                      {wire::kRst, 'R'}, {wire::kPsh, 'P'}, {wire::kEce, 'E'},
                                      {wire::kCwr, 'W'}, {wire::kAck, '.'}})
        if ((flags & bit) != 0) text += letter;
    return text;
}

}  // namespace

/// One line of the notation.
struct Script::Parsed {
    std::uint8_t flags = 0;
    std::uint32_t first = 0;
    std::uint32_t length = 0;
    std::optional<std::uint32_t> ack;
    std::optional<std::uint32_t> window;
    std::optional<std::uint32_t> tos;
    std::vector<std::vector<std::string>> options;
};

Script::Script(TcpConfig tcp, HostOptions options) : host_([&] {
    options.tcp = tcp;
    return options;
}()) {
    advance(std::chrono::seconds(3));  // duplicate address detection
}

Script::~Script() {
    pump();
    if (std::uncaught_exceptions() == 0) CHECK(sent_.empty());
    kept_.clear();
    host_.stack().detach_session(Host::kSession, now_);
    // As control does when nobody is left: what nobody has looked at went back to the listener.
    host_.stack().unlisten(kListener, now_);
    for (int i = 0; i < 200; ++i) advance(std::chrono::seconds(1));
    host_.flush_device();
    CHECK(host_.slots_out() == 0);
    CHECK(host_.tables().connections_live == 0);
    CHECK(host_.stack().session_gone(Host::kSession));
}

Script::Parsed Script::parse(std::string_view text, Where where) const {
    INFO(where.file << ":" << where.line << ": " << text);
    Parsed p;
    std::string line(text);
    const std::size_t open = line.find('<');
    if (open != std::string::npos) {
        std::stringstream list(line.substr(open + 1, line.find('>') - open - 1));
        for (std::string item; std::getline(list, item, ',');) {
            for (char& ch : item)
                if (ch == ':') ch = ' ';
            std::stringstream words(item);
            std::vector<std::string> option;
            for (std::string word; words >> word;) option.push_back(word);
            p.options.push_back(option);
        }
        line.resize(open);
    }
    std::stringstream words(line);
    std::string flags, range, word;
    words >> flags >> range;
    for (const char ch : flags)
        p.flags |= ch == 'S'   ? wire::kSyn
                   : ch == 'F' ? wire::kFin
                   : ch == 'R' ? wire::kRst
                   : ch == 'P' ? wire::kPsh
                   : ch == 'E' ? wire::kEce
                   : ch == 'W' ? wire::kCwr
                   : ch == '-' ? 0
                               : wire::kAck;
    p.first = static_cast<std::uint32_t>(std::stoul(range));
    p.length = static_cast<std::uint32_t>(std::stoul(range.substr(range.find('(') + 1)));
    while (words >> word) {
        std::uint32_t value = 0;
        words >> value;
        if (word == "ack") p.ack = value;
        else if (word == "win") p.window = value;
        else if (word == "tos") p.tos = value;
        else FAIL("unknown word " << word);
    }
    return p;
}

void Script::inject(std::string_view segment, Where where) {
    host_.receive(frame_of(segment, where), now_);
    pump();
}

void Script::inject_burst(std::span<const std::string> segments, Where where) {
    std::vector<Frame> frames;
    for (const std::string& segment : segments) frames.push_back(frame_of(segment, where));
    host_.receive(frames, now_);
    pump();
}

Frame Script::frame_of(std::string_view segment, Where where) const {
    const Parsed p = parse(segment, where);
    Frame tcp;
    put32(tcp, std::uint32_t{peer_port_} << 16 | our_port_);
    put32(tcp, peer_iss_ + p.first);
    put32(tcp, p.ack ? our_iss_ + *p.ack : 0);
    put32(tcp, std::uint32_t{p.flags} << 16 | p.window.value_or(65'535));
    put32(tcp, 0);
    for (const auto& option : p.options) {
        const auto number = [&](std::size_t i) {
            return static_cast<std::uint32_t>(std::stoul(option.at(i)));
        };
        if (option[0] == "mss") put(tcp, {2, 4, number(1) >> 8, number(1) & 255});
        else if (option[0] == "wscale") put(tcp, {1, 3, 3, number(1)});
        else if (option[0] == "sackOK") put(tcp, {1, 1, 4, 2});
        else if (option[0] == "sack") {
            put(tcp, {1, 1, 5, 10});
            put32(tcp, our_iss_ + number(1));
            put32(tcp, our_iss_ + number(2));
        } else if (option[0] == "ts") {
            put(tcp, {1, 1, 8, 10});
            put32(tcp, number(1));
            put32(tcp, number(2));
        } else FAIL("unknown option " << option[0]);
    }
    tcp[12] = static_cast<std::byte>(tcp.size() / 4 << 4);
    for (std::uint32_t i = 0; i < p.length; ++i)
        tcp.push_back(static_cast<std::byte>((p.first + i) % 251));
    const IpAddress peer = IpAddress::v4(kPeer), ours = IpAddress::v4(kOurs);
    auto sum = wire::pseudo_header(peer, ours, 6, tcp.size());
    sum.add(tcp);
    tcp[16] = static_cast<std::byte>(sum.checksum() >> 8);
    tcp[17] = static_cast<std::byte>(sum.checksum() & 255);

    Frame frame;
    ethernet(frame, 0x0800);
    const auto total = static_cast<unsigned>(kIp + tcp.size());
    put(frame, {0x45, p.tos.value_or(0), total >> 8, total & 255, 0, 0, 0x40, 0, 64, 6, 0, 0});
    put32(frame, kPeer);
    put32(frame, kOurs);
    const std::uint16_t check = wire::checksum(std::span(frame).subspan(kEthernet, kIp));
    frame[kEthernet + 10] = static_cast<std::byte>(check >> 8);
    frame[kEthernet + 11] = static_cast<std::byte>(check & 255);
    frame.insert(frame.end(), tcp.begin(), tcp.end());
    return frame;
}

void Script::learn(const Frame& frame) {
    const std::size_t tcp = kEthernet + kIp;
    const auto flags = std::to_integer<std::uint8_t>(frame[tcp + 13]);
    if ((flags & wire::kSyn) == 0 || iss_known_) return;
    our_iss_ = get32(frame, tcp + 4);
    our_port_ = get16(frame, tcp);
    iss_known_ = true;
}

void Script::pump() {
    bool asked = false;
    for (Frame& frame : host_.turn(now_)) {
        if (get16(frame, 12) == 0x0806 && get32(frame, kEthernet + 24) == kPeer) asked = true;
        if (!is_tcp(frame)) continue;
        learn(frame);
        sent_.push_back(std::move(frame));
    }
    if (!asked) return;
    host_.receive(arp_reply(), now_);
    pump();
}

void Script::expect(std::string_view segment, Where where) {
    const Parsed p = parse(segment, where);
    pump();
    INFO(where.file << ":" << where.line << ": " << segment);
    REQUIRE_FALSE(sent_.empty());
    const Frame frame = sent_.front();
    sent_.pop_front();
    const std::size_t tcp = kEthernet + kIp;
    const auto flags = std::to_integer<std::uint8_t>(frame[tcp + 13]);
    const std::size_t header = std::to_integer<std::size_t>(frame[tcp + 12]) >> 4 << 2;
    CHECK(flag_letters(flags) == flag_letters(p.flags));
    CHECK(get32(frame, tcp + 4) - our_iss_ == p.first);
    CHECK(get16(frame, kEthernet + 2) - kIp - header == p.length);
    if (p.ack) CHECK(get32(frame, tcp + 8) - peer_iss_ == *p.ack);
    if (p.window) CHECK(get16(frame, tcp + 14) == *p.window);
    if (p.tos) CHECK(std::to_integer<std::uint32_t>(frame[kEthernet + 1]) == *p.tos);
    auto sum = wire::pseudo_header(IpAddress::v4(kOurs), IpAddress::v4(kPeer), 6,
                                   frame.size() - tcp);
    sum.add(std::span(frame).subspan(tcp));
    CHECK(sum.checksum() == 0);

    std::vector<std::string> there;
    wire::for_each_option(
        std::span(frame).subspan(tcp + 20, header - 20),
        [&](wire::TcpOption kind, std::span<const std::byte> body) {
            const auto word = [&](std::size_t at) {
                be32 value;
                std::memcpy(&value, body.data() + at, 4);
                return std::uint32_t{value};
            };
            if (kind == wire::TcpOption::Mss)
                there.push_back("mss " + std::to_string(std::to_integer<unsigned>(body[0]) * 256 +
                                                        std::to_integer<unsigned>(body[1])));
            if (kind == wire::TcpOption::SackPermitted) there.emplace_back("sackOK");
            if (kind == wire::TcpOption::WindowScale)
                there.push_back("wscale " + std::to_string(std::to_integer<int>(body[0])));
            if (kind == wire::TcpOption::Timestamps) {
                last_timestamp_ = word(0);
                there.push_back("ts " + std::to_string(word(4)));
            }
            if (kind == wire::TcpOption::Sack)
                for (std::size_t i = 0; i + 8 <= body.size(); i += 8)
                    there.push_back("sack " + std::to_string(word(i) - peer_iss_) + " " +
                                    std::to_string(word(i + 4) - peer_iss_));
        });
    for (const auto& option : p.options) {
        std::string wanted = option[0];
        for (std::size_t i = 1; i < option.size(); ++i) wanted += " " + option[i];
        CHECK_THAT(there, Catch::VectorContains(wanted));
    }
}

void Script::expect_silence(Where where) {
    pump();
    INFO(where.file << ":" << where.line << ": silence expected");
    CHECK(sent_.empty());
}

void Script::advance(Micros by) {
    const Instant end = now_ + by;
    while (now_ < end) {
        now_ = std::clamp(host_.next_deadline(), now_ + Micros(1), end);
        pump();
    }
}

void Script::submit(shm::Submission& s) {
    s.connection = name_;
    CHECK(host_.submit(s, now_) == Violation::None);
    pump();
}

void Script::listen(std::uint16_t port, const ListenTerms& terms) {
    our_port_ = port;
    host_.stack().listen(kListener, Endpoint{IpAddress(), port}, 0, terms);
    host_.stack().share_listener(kListener, Host::kSession);
    credit(100);
}

void Script::credit(std::uint32_t connections) {
    shm::Submission s;
    s.op = shm::SubmissionOp::AcceptCredit;
    s.credit = {kListener, connections};
    submit(s);
}

void Script::connect(std::uint16_t port, std::uint32_t max_segment) {
    peer_port_ = port;
    shm::Submission s;
    s.op = shm::SubmissionOp::Connect;
    s.max_segment = max_segment;
    s.connect = {};
    s.connect.remote = {IpAddress::v4(kPeer), port};
    submit(s);
}

void Script::establish(const char* options, std::uint32_t window) {
    listen(80);
    const std::string win = " win " + std::to_string(window) + " ";
    inject("S 0:0(0)" + win + options);
    expect("S. 0:0(0) ack 1");
    inject(". 1:1(0) ack 1" + win);
    read();
    CHECK(was_accepted());
}

void Script::write(std::size_t bytes, std::uint16_t flags) {
    shm::Submission s;
    s.op = shm::SubmissionOp::Send;
    s.flags = flags;
    s.count = 1;
    s.slices = {};
    s.slices[0] = {written_, static_cast<std::uint32_t>(bytes), shm::kTxArena, 0};
    written_ += bytes;
    submit(s);
}

void Script::shut_down() {
    shm::Submission s;
    s.op = shm::SubmissionOp::Shutdown;
    submit(s);
}

void Script::close() {
    shm::Submission s;
    s.op = shm::SubmissionOp::Close;
    submit(s);
}

void Script::abort() {
    shm::Submission s;
    s.op = shm::SubmissionOp::Abort;
    submit(s);
}

void Script::option(shm::ConnectionOption option, std::uint64_t value) {
    shm::Submission s;
    s.op = shm::SubmissionOp::SetOption;
    s.option = {option, 0, value};
    submit(s);
}

std::size_t Script::read(bool release) {
    std::size_t bytes = 0;
    for (const shm::Completion& c : host_.take_completions()) {
        given_back_ += c.sent_bytes;
        if (c.connection.generation != 0) name_ = c.connection;
        switch (c.op) {
            case shm::CompletionOp::Accepted: accepted_ = true; break;
            case shm::CompletionOp::Connected: connected_ = true; break;
            case shm::CompletionOp::PeerClosed: peer_closed_ = true; break;
            case shm::CompletionOp::Closed: closed_ = c.error; break;
            case shm::CompletionOp::Received:
                for (std::size_t i = 0; i < c.count; ++i) {
                    bytes += c.slices[i].length;
                    kept_.push_back(c.slices[i]);
                }
                break;
            default: break;
        }
    }
    if (release) release_kept();
    return bytes;
}

void Script::release_kept() {
    for (const shm::Slice& slice : kept_) {
        shm::Submission s = Host::release_of(slice);
        submit(s);
    }
    kept_.clear();
}

}  // namespace chiru::sim
