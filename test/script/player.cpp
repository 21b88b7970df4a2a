// SPDX-License-Identifier: Apache-2.0
#include "test/script/player.hpp"

#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <exception>
#include <iomanip>
#include <sstream>

namespace chiru::script {

namespace {

std::string milliseconds(Micros time) {
    std::ostringstream text;
    text << std::setprecision(6) << static_cast<double>(time.count()) / 1000 << " ms";
    return text.str();
}

}  // namespace

std::optional<std::string> Player::play() {
    mark_ = target_.now();
    for (const Step& step : script_.steps) {
        std::string wrong;
        try {
            wrong = play_step(step);
        } catch (const std::exception& error) {
            wrong = error.what();
        }
        if (!wrong.empty())
            return "line " + std::to_string(step.line) + ": " + step.text + "\n    " + wrong;
    }
    if (const auto heard = hear(target_.now() + target_.tolerance().after_end))
        return "after the last line: " + unexpected(heard->second);
    return std::nullopt;
}

std::string Player::play_step(const Step& step) {
    if (step.action == Action::Expect) return expect(step);
    if (std::string wrong = reach(step); !wrong.empty()) return wrong;
    std::string wrong;
    switch (step.action) {
        case Action::Inject:
            target_.inject(frame_of(step.segment, target_.ends(), flow(step.peer)));
            break;
        case Action::Icmp:
            target_.inject(frame_of(step.icmp, target_.ends(), flow(step.peer)));
            break;
        case Action::Quiet:
            if (const auto heard = hear(target_.now())) wrong = unexpected(heard->second);
            break;
        case Action::Call: wrong = target_.call(step.words, flow(0).peer_port); break;
        default: wrong = target_.look(step.words); break;
    }
    mark_ = std::max(mark_, target_.now());
    return wrong;
}

std::string Player::reach(const Step& step) {
    if (!step.when.given) return {};
    const Instant due = mark_ + step.when.least;
    if (const auto heard = hear(due)) return "before that: " + unexpected(heard->second);
    mark_ = due;
    return {};
}

std::string Player::expect(const Step& step) {
    const Tolerance t = target_.tolerance();
    const When& when = step.when;
    const Instant latest = mark_ + (when.given ? when.most + slack(when.most, t.late) : t.at_once);
    const auto heard = hear(latest);
    if (!heard) return "nothing was sent until " + milliseconds(latest - mark_) + " later";
    const auto& [at, segment] = *heard;
    Flow& f = flow(step.peer);
    const bool syn = (segment.flags & wire::kSyn) != 0;
    if (syn && (!f.stack_isn || step.segment.new_isn)) {
        f.stack_isn = segment.sequence;
        f.stack_port = segment.stack_port;
    }
    std::string wrong = difference(step.segment, segment, target_.ends(), f);
    if (segment.peer_port != f.peer_port) wrong += " another port of the peer's;";
    if (f.stack_port != 0 && segment.stack_port != f.stack_port) wrong += " another port;";
    if (!wrong.empty()) return "got > " + describe(segment, f) + "\n    differs:" + wrong;
    if (when.given && at < mark_ + when.least - slack(when.least, t.early))
        return "came after " + milliseconds(at - mark_);
    if (segment.timestamp) f.last_timestamp = *segment.timestamp;
    for (const Option& option : segment.options)
        if (option.name == "fo" && !option.words.empty())
            for (Flow& each : flows_) each.last_cookie = option.words[0];
    mark_ = when.given ? at : std::max(mark_, at);
    return {};
}

std::optional<std::pair<Instant, Heard>> Player::hear(Instant deadline) {
    while (auto arrived = target_.next_frame(deadline))
        if (auto heard = heard_in(arrived->frame, target_.ends()))
            return std::pair{arrived->at, std::move(*heard)};
    return std::nullopt;
}

Flow& Player::flow(unsigned peer) {
    while (flows_.size() <= peer) {
        Flow made;
        made.peer_port = static_cast<std::uint16_t>(target_.peer_port() + flows_.size());
        made.stack_port = target_.listen_port();
        if (!flows_.empty()) made.last_cookie = flows_[0].last_cookie;
        flows_.push_back(made);
    }
    return flows_[peer];
}

std::string Player::unexpected(const Heard& heard) {
    for (const Flow& f : flows_)
        if (f.peer_port == heard.peer_port) return "got > " + describe(heard, f);
    return "got > " + describe(heard, Flow{});
}

Micros Player::slack(Micros time, Micros fixed) const {
    const double part = static_cast<double>(time.count()) * target_.tolerance().share;
    return fixed + Micros(static_cast<std::int64_t>(part));
}

}  // namespace chiru::script
