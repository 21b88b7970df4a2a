// SPDX-License-Identifier: Apache-2.0
//
// Every file in bad/ begins with comment lines "# expect: <message>": all the mistakes a person is
// told of, in their order, without the path of the file. The files say what a rule is for better
// than this program could.
#include "daemon/config/config.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using namespace chiru;
using namespace chiru::daemon;

namespace {

const fs::path kSource = CHIRU_SOURCE_ROOT;
/// So that the test is the same everywhere.
const Machine kMachine{.cores = {0, 1, 2, 3},
                       .has_group = [](const std::string& name) { return name == "chiru"; }};

std::vector<fs::path> files_in(const fs::path& folder) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder))
        if (entry.path().extension() == ".yaml") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
}

std::vector<std::string> expected_mistakes(const fs::path& file) {
    constexpr std::string_view kMark = "# expect: ";
    std::vector<std::string> expected;
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line) && line.starts_with(kMark);)
        expected.push_back(file.string() + ":" + line.substr(kMark.size()));
    return expected;
}

std::vector<std::string> mistakes(const fs::path& file) {
    const auto config = load_config(file, kMachine);
    return config ? std::vector<std::string>() : config.error();
}

fs::path write_file(const std::string& name, const std::string& text) {
    const fs::path file = fs::temp_directory_path() / ("chiru-config-test-" + name);
    std::ofstream(file) << text;
    return file;
}

}  // namespace

TEST_CASE("Each bad configuration is answered with all its mistakes", "[config]") {
    const std::vector<fs::path> files = files_in(kSource / "test/daemon/config/bad");
    CHECK(files.size() >= 25);
    for (const fs::path& file : files) {
        INFO(file);
        const std::vector<std::string> expected = expected_mistakes(file);
        CHECK_FALSE(expected.empty());
        CHECK(mistakes(file) == expected);
    }
}

TEST_CASE("A configuration that cannot be read says why", "[config]") {
    CHECK(mistakes("/nonexistent/chirud.yaml").at(0).starts_with(
        "/nonexistent/chirud.yaml: does not exist"));
    CHECK(mistakes("/tmp").at(0) == "/tmp: is a directory; give a file");
    const fs::path empty = write_file("empty.yaml", "# nothing but a comment\n");
    CHECK(mistakes(empty).at(0) ==
          empty.string() + ": is empty; at least dataplane, ports and interfaces are needed");
    fs::remove(empty);
}

TEST_CASE("The packaged configurations load", "[config]") {
    const std::vector<fs::path> files = files_in(kSource / "configs");
    CHECK(files.size() >= 4);
    for (const fs::path& file : files) {
        INFO(file);
        CHECK(mistakes(file) == std::vector<std::string>());
    }
}

TEST_CASE("Every key is documented, and every documented key exists", "[config]") {
    std::ifstream document(kSource / "docs/configuration.md");
    std::set<std::string> documented;
    for (std::string line; std::getline(document, line);)
        if (line.starts_with("| `"))
            documented.insert(line.substr(3, line.find('`', 3) - 3));
    CHECK(documented == config_keys());
}

TEST_CASE("Values arrive where they belong", "[config]") {
    const fs::path file = write_file("good.yaml", R"(
control: { socket: /run/chiru/x.sock, mode: 0666 }
dataplane: { cores: [1, 0], idle: poll, hugepages: off, connections: 1024, spin_us: 20 }
ports:
  - { name: nic0, device: "net_tap0,iface=chiru0", mtu: 9000 }
  - { name: nic1, device: 0000:3b:00.0 }
interfaces:
  - name: storage
    port: nic1
    vlan: 7
    addresses: [10.7.0.2/24, "fd07::2/64"]
    routes: [ { to: default, via: 10.7.0.1 }, { to: default, via: "fe80::1" },
              { to: 10.9.0.0/16, via: 10.7.0.9 } ]
    congestion: dctcp
    ecn: on
sessions: { tx_arena: 16M, isolation: private }
tcp: { min_rto: 10ms, congestion: reno, ecn: off, fast_open: client,
       ephemeral_ports: [40000, 50000] }
log: { level: debug }
)");
    const auto loaded = load_config(file, kMachine);
    REQUIRE(loaded);
    const Config& config = *loaded;
    CHECK(config.control.socket == "/run/chiru/x.sock");
    CHECK(config.control.mode == 0666);
    CHECK(config.dataplane.cores == std::vector<unsigned>{1, 0});
    CHECK(config.dataplane.idle == Idle::Poll);
    CHECK(config.dataplane.spin == Micros(20));
    CHECK(config.dataplane.hugepages == HugepageUse::Off);
    REQUIRE(config.ports.size() == 2);
    CHECK(config.ports[0].mtu == 9000);
    CHECK(config.ports[1].device == "0000:3b:00.0");
    REQUIRE(config.interfaces.size() == 1);
    const InterfaceConfig& storage = config.interfaces[0];
    CHECK(storage.port == 1);
    CHECK(storage.vlan == 7);
    CHECK(storage.addresses.at(1).to_string() == "fd07::2/64");
    REQUIRE(storage.routes.size() == 3);
    CHECK(storage.routes[0].to.to_string() == "0.0.0.0/0");
    CHECK(storage.routes[1].to.to_string() == "::/0");
    CHECK(storage.routes[2].via.to_string() == "10.7.0.9");
    CHECK(config.sessions.tx_arena_bytes == 16u << 20);
    CHECK(config.sessions.isolation == IsolationPolicy::Private);
    CHECK(config.tcp.min_rto == std::chrono::milliseconds(10));
    CHECK(config.tcp.congestion == shm::CongestionAlgorithm::Reno);
    CHECK(config.tcp.ecn == EcnPolicy::Off);
    CHECK(config.tcp.fast_open == FastOpenPolicy::Client);
    CHECK(storage.congestion == shm::CongestionAlgorithm::Dctcp);
    CHECK(storage.ecn == EcnPolicy::On);
    CHECK(config.tcp.first_port == 40'000);
    CHECK(config.log_level == LogLevel::Debug);
    fs::remove(file);
}

TEST_CASE("What is left out has its default", "[config]") {
    const fs::path file = write_file("least.yaml", R"(
dataplane: { cores: [0] }
ports: [ { name: nic0, device: net_tap0 } ]
interfaces: [ { name: lan, port: nic0, addresses: [10.7.0.2/24] } ]
)");
    const auto loaded = load_config(file, kMachine);
    REQUIRE(loaded);
    CHECK(loaded->control.socket == "/run/chiru/control.sock");
    CHECK_FALSE(loaded->control.mode);
    CHECK(loaded->dataplane.idle == Idle::Adaptive);
    CHECK(loaded->dataplane.connections == 131'072);
    CHECK(loaded->ports[0].mtu == 1500);
    CHECK(loaded->interfaces[0].vlan == 0);
    CHECK_FALSE(loaded->interfaces[0].congestion);
    CHECK_FALSE(loaded->interfaces[0].ecn);
    CHECK(loaded->tcp.ecn == EcnPolicy::Passive);
    CHECK(loaded->tcp.fast_open == FastOpenPolicy::Both);
    CHECK(loaded->tcp.min_rto == std::chrono::milliseconds(5));
    fs::remove(file);
}
