// SPDX-License-Identifier: Apache-2.0
//
// A client that may write anything into its submission ring, beside an honest one's connections
// coming and going. Input: for each submission a byte (how many of the following bytes are taken as
// they are, over a submission that is right) and those bytes; an operation byte of 0xf0 and above
// lets time pass instead.
//
// Holds: the stack goes on whatever it reads; a violation ends the session, as the daemon does it;
// then nothing of it is left, and the peer is whole.
#include "test/fuzz/hosts.hpp"

#include <algorithm>
#include <cstring>

using namespace chiru;
using namespace std::chrono_literals;
using fuzz::Input;

namespace {

constexpr int kOperations = 300;

class Client {
public:
    Client()
        : net_(fuzz::small_host(1), fuzz::small_host(2), fuzz::short_wire(1), fuzz::short_wire(2),
               32'768) {
        sim::SocketPlan plan;
        plan.send_bytes = 3000;
        plan.may_fail = true;
        net_.without_left_app();
        net_.right_app.listen(80, plan);
        net_.left.stack().listen(kListener, {IpAddress(), 81}, 0, {.backlog = 4});
        net_.left.stack().share_listener(kListener, sim::Host::kSession);
        net_.run(3s);
    }

    void operate(Input& input) {
        const std::uint8_t op = input.byte();
        if (op >= 0xf0) return pass((op & 15) + 1);
        shm::Submission s = likely(op);
        // Its first bytes say what it is and whose; the body follows.
        const auto raw = input.bytes(std::min<std::size_t>(op >> 3, sizeof s - 24));
        std::ranges::copy(raw, reinterpret_cast<std::byte*>(&s) + (op & 1) * 24);
        if (gone_) return;
        if (net_.left.stack().submission_room(sim::Host::kChannel) == 0) return pass(1);
        Violation violation = Violation::None;
        fuzz::in_bounded_time([&] { violation = net_.left.submit(s, net_.now); });
        if (violation != Violation::None) end();
    }

    void finish() {
        if (!gone_) end();
        net_.run(5s);
        fuzz::must_end(net_);
    }

private:
    static constexpr shm::ListenerId kListener{9};

    /// What an honest client would submit.
    shm::Submission likely(std::uint8_t op) {
        shm::Submission s;
        s.connection = name_;
        s.user = 1;
        switch (op % 6) {
            case 0:
                s.op = shm::SubmissionOp::Connect;
                s.connect = {};
                s.connect.remote = {net_.right.v4(), 80};
                s.connect.local.address = IpAddress::v4(0);
                break;
            case 1:
            case 2:
                s.op = shm::SubmissionOp::Send;
                s.count = 1;
                s.slices = {};
                s.slices[0] = {op * 1024u, 700, shm::kTxArena, 0};
                break;
            case 3:
                s = held_.length != 0 ? sim::Host::release_of(held_) : s;
                held_ = {};
                break;
            case 4: s.op = shm::SubmissionOp::Shutdown; break;
            default:
                s.op = shm::SubmissionOp::AcceptCredit;
                s.credit = {kListener, 3};
        }
        return s;
    }

    void pass(int times) {
        net_.run(Micros(times * 400));
        if (gone_) return;
        for (const shm::Completion& c : net_.left.take_completions()) {
            name_ = c.connection;
            if (c.op == shm::CompletionOp::Received) held_ = c.slices[0];
        }
    }

    void end() {
        gone_ = true;
        net_.left.lose_client(net_.now);
        net_.run(1ms);
    }

    sim::Network net_;
    shm::ConnectionId name_;
    shm::Slice held_;
    bool gone_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Client client;
    for (int i = 0; i < kOperations && !input.empty(); ++i) client.operate(input);
    client.finish();
    return 0;
}
