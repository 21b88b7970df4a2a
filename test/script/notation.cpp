// SPDX-License-Identifier: Apache-2.0
#include "test/script/notation.hpp"

#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace chiru::script {

namespace {

constexpr auto kFlagLetters = std::to_array<std::pair<char, std::uint8_t>>({
    {'S', wire::kSyn}, {'F', wire::kFin}, {'R', wire::kRst}, {'P', wire::kPsh},
    {'U', wire::kUrg}, {'E', wire::kEce}, {'W', wire::kCwr}, {'.', wire::kAck}});

/// What is wrong with a line; parse_script() adds its number.
struct Wrong : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::vector<std::string> split(std::string_view text) {
    std::istringstream words{std::string(text)};
    std::vector<std::string> out;
    for (std::string word; words >> word;) out.push_back(word);
    return out;
}

std::uint32_t number(std::string_view text) {
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size())
        throw Wrong("'" + std::string(text) + "' is not a number");
    return value;
}

std::pair<std::uint32_t, std::uint32_t> range(std::string_view text, std::string_view between) {
    const std::size_t at = text.find(between);
    if (at == std::string_view::npos) return {number(text), number(text)};
    return {number(text.substr(0, at)), number(text.substr(at + between.size()))};
}

std::uint8_t flags_of(std::string_view letters) {
    std::uint8_t flags = 0;
    for (const char ch : letters) {
        if (ch == '-') continue;  // no flag at all
        bool known = false;
        for (const auto& [letter, bit] : kFlagLetters)
            if (letter == ch) {
                flags |= bit;
                known = true;
            }
        if (!known) throw Wrong(std::string("'") + ch + "' is no flag");
    }
    return flags;
}

std::vector<Option> options_of(std::string_view list) {
    std::vector<Option> options;
    std::istringstream items{std::string(list)};
    for (std::string item; std::getline(items, item, ',');) {
        std::vector<std::string> words = split(item);
        if (words.empty()) throw Wrong("an empty option");
        Option option{words[0], {words.begin() + 1, words.end()}};
        options.push_back(std::move(option));
    }
    return options;
}

std::uint32_t ecn_of(const std::string& word) {
    if (word == "none") return 0;
    if (word == "ect1") return 1;
    if (word == "ect0") return 2;
    if (word == "ce") return 3;
    throw Wrong("'" + word + "' is none of none, ect0, ect1, ce");
}

/// "flags first:end [word value]... [<options>]"
Segment segment_of(std::string_view text) {
    Segment s;
    const std::size_t open = text.find('<');
    if (open != std::string_view::npos) {
        const std::size_t close = text.find('>', open);
        if (close + 1 != text.size()) throw Wrong("options end with '>', and the line with them");
        s.options = options_of(text.substr(open + 1, close - open - 1));
    }
    const std::vector<std::string> words = split(text.substr(0, open));
    if (words.size() < 2) throw Wrong("a segment is: flags first:end ...");
    s.ack_flag_free = words[0].ends_with('*');
    s.flags = flags_of(words[0].substr(0, words[0].find('*')));
    const auto [first, end] = range(words[1], ":");
    s.first = first;
    s.length = end - first;
    for (std::size_t i = 2; i < words.size(); ++i) {
        const std::string& word = words[i];
        const auto value = [&]() -> const std::string& {
            if (++i == words.size()) throw Wrong("'" + word + "' wants a value");
            return words[i];
        };
        if (word == "ack") s.ack = number(value());
        else if (word == "win") std::tie(s.window_least, s.window_most) = range(value(), "..");
        else if (word == "urg") s.urgent = number(value());
        else if (word == "ecn") s.ecn = ecn_of(value());
        else if (word == "header_words") s.header_words = number(value());
        else if (word == "reserved") s.reserved = number(value());
        else if (word == "bad_checksum") s.bad_checksum = true;
        else if (word == "altered") s.altered = true;
        else if (word == "from_itself") s.from_stack_address = true;
        else if (word == "isn_new") s.new_isn = true;
        else throw Wrong("'" + word + "' is nothing a segment has");
    }
    return s;
}

IcmpError icmp_of(const std::vector<std::string>& words) {
    if (words.size() < 2) throw Wrong("icmp wants: what sequence [mtu n]");
    IcmpError error{words[0], number(words[1]), 0};
    if (words.size() == 4 && words[2] == "mtu") error.mtu = number(words[3]);
    else if (words.size() != 2) throw Wrong("icmp wants: what sequence [mtu n]");
    return error;
}

When when_of(std::string_view text) {
    const std::size_t dots = text.find("..");
    const auto least = parse_duration(text.substr(0, dots));
    const auto most =
        dots == std::string_view::npos ? least : parse_duration(text.substr(dots + 2));
    if (!least || !most || *least > *most)
        throw Wrong("'" + std::string(text) + "' is not a time");
    return {true, *least, *most};
}

/// "<2" is the peer's third port.
unsigned peer_of(std::string_view mark) {
    return mark.size() == 1 ? 0 : number(mark.substr(1));
}

Step step_of(std::string_view line) {
    Step step;
    if (line[0] == '+') {
        const std::size_t space = line.find(' ');
        if (space == std::string_view::npos) throw Wrong("nothing happens at that time");
        step.when = when_of(line.substr(1, space - 1));
        line = line.substr(line.find_first_not_of(' ', space));
    }
    const std::size_t space = line.find(' ');
    const std::string_view mark = line.substr(0, space);
    const std::string_view rest = space == std::string_view::npos ? "" : line.substr(space + 1);
    if (mark[0] == '<' || mark[0] == '>') {
        step.peer = peer_of(mark);
        step.words = split(rest);
        if (mark[0] == '<' && !step.words.empty() && step.words[0] == "icmp") {
            step.action = Action::Icmp;
            step.icmp = icmp_of({step.words.begin() + 1, step.words.end()});
            return step;
        }
        step.action = mark[0] == '<' ? Action::Inject : Action::Expect;
        step.segment = segment_of(rest);
        return step;
    }
    step.words = split(line);
    if (mark == "quiet") step.action = Action::Quiet;
    else if (mark == "count" || mark == "state") step.action = Action::Look;
    else step.action = Action::Call;
    return step;
}

std::string echo_of_handshake(const Segment& syn) {
    for (const Option& option : syn.options)
        if (option.name == "TS") return " <TS " + option.words.at(0) + " last>";
    return "";
}

/// "+40ms " in front of the answer to the stack's SYN: the round trip of the handshake.
std::string take_round_trip(std::string_view& rest) {
    if (!rest.starts_with(" +")) return "";
    const std::size_t end = std::min(rest.find(' ', 1), rest.size());
    const std::string time(rest.substr(1, end - 1));
    rest.remove_prefix(end);
    return time + " ";
}

/// "established win n <options>": a passive open through a handshake with that SYN.
std::vector<std::string> expand_established(std::string_view rest) {
    const std::string later = take_round_trip(rest);
    const std::string after(rest);
    const Segment syn = segment_of("S 0:0" + after);
    const std::string window =
        syn.window_least ? " win " + std::to_string(*syn.window_least) : "";
    return {"listen", "< S 0:0" + after, "> S. 0:0 ack 1",
            later + "< . 1:1 ack 1" + window + echo_of_handshake(syn), "accept"};
}

/// "connection win n <options>": an active open, answered by that SYN and ACK.
std::vector<std::string> expand_connection(std::string_view rest) {
    const std::string later = take_round_trip(rest);
    return {"connect", "> S 0:0", later + "< S. 0:0 ack 1" + std::string(rest),
            "> . 1:1 ack 1", "connected"};
}

/// "flood n win n <options>": so many other ports of the peer's begin a handshake, and leave it.
std::vector<std::string> expand_flood(std::string_view rest) {
    constexpr unsigned kFirstPort = 100;
    const std::string_view count = rest.substr(1, rest.find(' ', 1) - 1);
    const std::string syn(rest.substr(1 + count.size()));
    std::vector<std::string> lines;
    for (unsigned port = kFirstPort; port < kFirstPort + number(count); ++port) {
        const std::string mark = std::to_string(port);
        lines.push_back("<" + mark + " S 0:0" + syn);
        lines.push_back(">" + mark + " S. 0:0 ack 1");
    }
    return lines;
}

/// The header's lines, which come first.
bool take_header(Script& script, std::string_view line) {
    const auto reason = [&line](std::string_view word) -> std::optional<std::string> {
        if (!line.starts_with(word)) return std::nullopt;
        const std::string_view rest = line.substr(word.size());
        if (rest.size() < 10) throw Wrong("say why");
        return std::string(rest);
    };
    if (script.rule.empty()) {
        const std::size_t colon = line.find(": ");
        if (!line.starts_with("RFC ") || colon == std::string_view::npos)
            throw Wrong("a script begins with 'RFC number section: what it shows'");
        script.rule = line.substr(0, colon);
        script.title = line.substr(colon + 2);
        return true;
    }
    if (const auto why = reason("differs linux: ")) {
        script.differs_from_linux = *why;
        return true;
    }
    if (const auto why = reason("only engine: ")) {
        script.engine_only = *why;
        return true;
    }
    for (const unsigned family : {4u, 6u})
        if (reason("only ipv" + std::to_string(family) + ": ")) {
            script.family = family;
            return true;
        }
    if (!line.starts_with("set ")) return false;
    const std::vector<std::string> words = split(line);
    if (words.size() != 3) throw Wrong("set wants a name and a value");
    script.settings.push_back({words[1], words[2]});
    return true;
}

void take_line(Script& script, unsigned number, std::string_view line) {
    if (take_header(script, line)) return;
    std::vector<std::string> lines{std::string(line)};
    const std::string_view first = line.substr(0, line.find(' '));
    if (first == "established") lines = expand_established(line.substr(first.size()));
    if (first == "connection") lines = expand_connection(line.substr(first.size()));
    if (first == "flood") {
        lines = expand_flood(line.substr(first.size()));
        script.engine_only = "over a wire a script has few ports";
    }
    for (const std::string& each : lines) {
        Step step = step_of(each);
        step.line = number;
        step.text = each;
        script.steps.push_back(std::move(step));
    }
}

std::string_view trim(std::string_view text) {
    const std::size_t hash = text.find('#');
    text = text.substr(0, hash);
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

}  // namespace

Micros Script::duration() const {
    Micros sum{};
    for (const Step& step : steps) sum += step.when.least;
    return sum;
}

Result<Script, std::string> parse_script(std::string_view name, std::string_view text) {
    Script script;
    script.name = name;
    unsigned number = 0;
    while (!text.empty()) {
        ++number;
        const std::size_t end = text.find('\n');
        const std::string_view line = trim(text.substr(0, end));
        text = end == std::string_view::npos ? "" : text.substr(end + 1);
        if (line.empty()) continue;
        try {
            take_line(script, number, line);
        } catch (const std::exception& wrong) {
            return std::unexpected("line " + std::to_string(number) + ": " + wrong.what());
        }
    }
    if (script.steps.empty()) return std::unexpected("line 1: nothing happens");
    return script;
}

std::optional<Micros> parse_duration(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || value < 0) return std::nullopt;
    const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
    double us = 0;
    if (unit == "us") us = 1;
    else if (unit == "ms") us = 1e3;
    else if (unit == "s") us = 1e6;
    else if (unit == "min") us = 60e6;
    else if (unit == "h") us = 3600e6;
    else if (value > 0 || !unit.empty()) return std::nullopt;
    return Micros(static_cast<std::int64_t>(value * us + 0.5));
}

std::string flag_letters(std::uint8_t flags) {
    std::string text;
    for (const auto& [letter, bit] : kFlagLetters)
        if ((flags & bit) != 0) text += letter;
    return text.empty() ? "-" : text;
}

}  // namespace chiru::script
