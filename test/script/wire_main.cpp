// SPDX-License-Identifier: Apache-2.0
//
// Plays packet scripts over a wire, many at a time: each has a peer of its own.
//
//     script-wire --target chirud|linux --interface IF --stack-mac MAC --stack ADDRESS
//                 --peers ADDRESS [--vlan ID] [--jobs N] [--longest SECONDS]
//                 FOLDER-OR-FILE... -- PUPPET...
//
// Prints a line for each script that did not go as it should, and a summary. A script that is said
// to differ from Linux must do so: one that agrees after all is a failure.
#include "test/script/library.hpp"
#include "test/script/wire.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <sys/mman.h>

using namespace chiru;
using namespace chiru::script;

namespace {

constexpr std::uint16_t kFirstListenPort = 10'000;
constexpr std::uint16_t kFirstPeerPort = 20'000;
constexpr std::uint16_t kPortsOfScript = 8;
constexpr std::size_t kPeers = 150;  // addresses of the network that are the peers'

struct Options {
    std::string target = "chirud";
    std::string interface;
    MacAddress stack_mac;
    IpAddress stack;
    IpAddress peers;  ///< the first; the others follow
    std::uint16_t vlan = 0;
    unsigned jobs = 16;
    unsigned longest_s = 8;
    std::vector<std::string> places;
    std::vector<std::string> puppet;

    bool linux() const { return target == "linux"; }
};

/// What the workers have in common.
struct Score {
    std::atomic<std::size_t> next{0};
    std::atomic<std::size_t> played{0};
    std::atomic<std::size_t> differing{0};
    std::atomic<std::size_t> skipped{0};
    std::atomic<std::size_t> failed{0};
};

IpAddress following(const IpAddress& address, unsigned n) {
    IpAddress::Bytes bytes = address.bytes();
    bytes[15] = static_cast<std::uint8_t>(bytes[15] + n);
    return IpAddress(bytes);
}

Options parse(int argc, char** argv) {
    Options o;
    int i = 1;
    const auto value = [&]() -> std::string {
        if (++i == argc) throw std::runtime_error("a value is missing");
        return argv[i];
    };
    for (; i < argc && std::string_view(argv[i]) != "--"; ++i) {
        const std::string word = argv[i];
        if (word == "--target") o.target = value();
        else if (word == "--interface") o.interface = value();
        else if (word == "--stack-mac") o.stack_mac = parse_mac(value()).value();
        else if (word == "--stack") o.stack = IpAddress::parse(value()).value();
        else if (word == "--peers") o.peers = IpAddress::parse(value()).value();
        else if (word == "--vlan") o.vlan = static_cast<std::uint16_t>(std::stoul(value()));
        else if (word == "--jobs") o.jobs = static_cast<unsigned>(std::stoul(value()));
        else if (word == "--longest") o.longest_s = static_cast<unsigned>(std::stoul(value()));
        else o.places.push_back(word);
    }
    for (++i; i < argc; ++i) o.puppet.emplace_back(argv[i]);
    if (o.puppet.empty()) throw std::runtime_error("no puppet");
    return o;
}

bool fits(const Script& script, const Options& o) {
    if (!script.engine_only.empty() || !script.settings.empty()) return false;
    if (script.family != 0 && (script.family == 4) != o.stack.is_v4()) return false;
    return script.duration() <= std::chrono::seconds(o.longest_s);
}

std::optional<std::string> play(const Script& script, const Stage& stage) {
    try {
        WireTarget target(stage);
        return Player(script, target).play();
    } catch (const std::exception& error) {
        return error.what();
    }
}

void judge(const Script& script, std::optional<std::string> wrong, bool linux, Score& score) {
    ++score.played;
    if (linux && !script.differs_from_linux.empty()) {
        ++score.differing;
        wrong = wrong ? std::nullopt
                      : std::optional<std::string>("agrees with Linux, though it says otherwise");
    }
    if (!wrong) return;
    ++score.failed;
    std::printf("%s: %s\n", script.name.c_str(), wrong->c_str());
    std::fflush(stdout);
}

void work(const Library& library, const Options& o, Score& score) {
    Stage stage;
    stage.interface = o.interface;
    stage.puppet = o.puppet;
    stage.ends.stack_mac = o.stack_mac;
    stage.ends.stack = o.stack;
    stage.ends.vlan = o.vlan;
    for (std::size_t i; (i = score.next++) < library.scripts.size();) {
        const Script& script = library.scripts[i];
        if (!fits(script, o)) {
            ++score.skipped;
            continue;
        }
        // A peer of its own as far as addresses go: hosts remember paths.
        const auto peer = static_cast<unsigned>(i % kPeers);
        const bool v4 = o.stack.is_v4();
        stage.ends.peer = following(o.peers, peer);
        stage.ends.peer_mac = MacAddress{{2, 0, 0, 0, v4 ? std::uint8_t{4} : std::uint8_t{6},
                                          static_cast<std::uint8_t>(peer)}};
        stage.listen_port = static_cast<std::uint16_t>(kFirstListenPort + i);
        stage.peer_port = static_cast<std::uint16_t>(kFirstPeerPort + i * kPortsOfScript);
        judge(script, play(script, stage), o.linux(), score);
    }
}

int run(const Options& o) {
    const Library library = read_library(o.places);
    for (const std::string& mistake : library.mistakes) std::printf("%s\n", mistake.c_str());
    std::fflush(stdout);
    void* memory = mmap(nullptr, sizeof(Score), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    auto& score = *new (memory) Score;
    std::vector<pid_t> workers;
    for (unsigned i = 0; i < o.jobs; ++i) {
        const pid_t pid = fork();
        if (pid == 0) {
            work(library, o, score);
            _exit(0);
        }
        if (pid > 0) workers.push_back(pid);
    }
    bool whole = !workers.empty();
    for (const pid_t pid : workers) {
        int status = 0;
        waitpid(pid, &status, 0);
        whole = whole && status == 0;
    }
    std::printf("%zu scripts on %s: %zu failed, %zu differ as listed, %zu are for the engine\n",
                score.played.load(), o.target.c_str(), score.failed.load(),
                score.differing.load(), score.skipped.load());
    return whole && library.mistakes.empty() && score.failed == 0 && score.played > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(parse(argc, argv));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "script-wire: %s\n", error.what());
        return 2;
    }
}
