// SPDX-License-Identifier: Apache-2.0
#include "daemon/config/config.hpp"

#include "daemon/config/yaml_section.hpp"
#include "shm/control.hpp"

#include <grp.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>
#include <system_error>

namespace chiru::daemon {
namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t kSmallestMtu = 576;   // RFC 791: what every IPv4 host takes
constexpr std::uint16_t kSmallestV6Mtu = 1280;  // RFC 8200 §5
constexpr std::uint16_t kLargestMtu = 9600;
constexpr std::size_t kMaxConfiguredAddresses = shm::kMaxAddresses - 4;  // room for learnt ones
constexpr std::size_t kMaxConfiguredRoutes = shm::kMaxRoutes - shm::kMaxAddresses;
constexpr std::uintmax_t kMaxFileBytes = 1u << 20;

void read_control(YamlSection control, const Machine& machine, ControlSettings& settings) {
    const auto parse_group = [&](const std::string& text) -> Parsed<std::string> {
        const Parsed<std::string> name = parse_name(text);
        if (!name || machine.has_group(text)) return name;
        return std::unexpected("there is no group " + quoted(text) +
                               " on this machine; \"groupadd --system " + text +
                               "\" makes one");
    };
    settings.socket = shm::kDefaultControlSocket;
    control.optional("socket", settings.socket, parse_socket_path);
    control.optional("group", settings.group, parse_group);
    std::uint32_t mode = 0;
    if (control.optional("mode", mode, parse_mode)) settings.mode = mode;
    control.reject_unknown_keys();
}

void read_cores(YamlSection& dataplane, const Machine& machine, DataplaneSettings& settings) {
    if (!dataplane.present("cores")) return;
    const bool is_list = dataplane.at("cores").is_list();
    const std::vector<YamlItem> items = dataplane.list("cores");
    const std::string range = machine.cores.empty()
                                  ? std::string("none")
                                  : std::to_string(*machine.cores.begin()) + " to " +
                                        std::to_string(*machine.cores.rbegin());
    for (const YamlItem& item : items) {
        unsigned core = 0;
        if (!item.read(core, integer(0u, 4095u))) continue;
        if (std::find(settings.cores.begin(), settings.cores.end(), core) !=
            settings.cores.end())
            item.complain("core " + std::to_string(core) + " appears twice");
        else if (settings.pin && !machine.cores.contains(core))
            item.complain("core " + std::to_string(core) + " is not on this machine; it has " +
                          range);
        settings.cores.push_back(core);
    }
    if (is_list && items.empty())
        dataplane.at("cores").complain("needs at least one core, as in [0]");
    if (items.size() > shm::kMaxShards)
        dataplane.at("cores").complain("has " + std::to_string(items.size()) +
                                       " cores; there may be " +
                                       std::to_string(shm::kMaxShards));
}

void read_dataplane(YamlSection dataplane, const Machine& machine, DataplaneSettings& settings) {
    dataplane.optional("pin", settings.pin, parse_bool);
    read_cores(dataplane, machine, settings);
    dataplane.optional("idle", settings.idle,
                       one_of<Idle>({{"poll", Idle::Poll},
                                     {"adaptive", Idle::Adaptive},
                                     {"interrupt", Idle::Interrupt}}));
    std::uint32_t spin_us = static_cast<std::uint32_t>(settings.spin.count());
    dataplane.optional("spin_us", spin_us, integer(0u, 1'000'000u));
    settings.spin = Micros(spin_us);
    dataplane.optional("hugepages", settings.hugepages,
                       one_of<HugepageUse>({{"auto", HugepageUse::Auto},
                                            {"on", HugepageUse::Required},
                                            {"off", HugepageUse::Off}}));
    dataplane.optional("connections", settings.connections, integer(16u, 4'194'304u));
    dataplane.optional("buffers", settings.buffers, integer(1024u, 4'194'304u));
    dataplane.reject_unknown_keys();
}

/// "net_tap0,iface=a" and "net_tap0" are the same device.
std::string device_name(const std::string& device) { return device.substr(0, device.find(',')); }

void read_port(YamlSection item, std::vector<PortSettings>& ports) {
    PortSettings port;
    const auto taken = [&](auto member, const std::string& value) {
        return std::any_of(ports.begin(), ports.end(),
                           [&](const PortSettings& other) { return member(other) == value; });
    };
    if (item.required("name", port.name, parse_name) &&
        taken([](const PortSettings& other) { return other.name; }, port.name))
        item.at("name").complain("another port has the name " + port.name);
    if (item.required("device", port.device, parse_device) &&
        taken([](const PortSettings& other) { return device_name(other.device); },
              device_name(port.device)))
        item.at("device").complain("another port has the device " + device_name(port.device));
    item.optional("mtu", port.mtu, integer(kSmallestMtu, kLargestMtu));
    item.optional("lro", port.lro, parse_bool);
    item.reject_unknown_keys();
    ports.push_back(port);
}

void read_route(YamlSection item, InterfaceConfig& interface) {
    RouteConfig route;
    bool is_default = false;
    const auto parse_to = [&](const std::string& text) -> Parsed<IpPrefix> {
        is_default = text == "default";
        return is_default ? IpPrefix{} : parse_network(text);
    };
    const bool to = item.required("to", route.to, parse_to);
    const bool via = item.required("via", route.via, parse_gateway);
    item.reject_unknown_keys();
    if (!to || !via) return;

    if (is_default && route.via.is_v4()) route.to.address = IpAddress::v4(0);
    if (route.to.address.is_v4() != route.via.is_v4())
        return item.at("via").complain(route.via.to_string() + " is " +
                                       (route.via.is_v4() ? "IPv4" : "IPv6") + ", but " +
                                       route.to.to_string() + " is not");
    const auto& addresses = interface.addresses;
    const bool on_link =
        (route.via.is_v6() && route.via.is_link_local()) ||
        std::any_of(addresses.begin(), addresses.end(),
                    [&](const IpPrefix& ours) { return ours.contains(route.via); });
    if (!on_link)
        return item.at("via").complain(route.via.to_string() +
                                       " is not on the link: no address of interface " +
                                       interface.name + " has it in its network");
    if (std::any_of(addresses.begin(), addresses.end(),
                    [&](const IpPrefix& ours) { return ours.address == route.via; }))
        return item.at("via").complain(route.via.to_string() +
                                       " is an address of this interface itself");
    if (std::any_of(interface.routes.begin(), interface.routes.end(),
                    [&](const RouteConfig& other) { return other.to == route.to; }))
        return item.at("to").complain("another route leads to " + route.to.to_string());
    interface.routes.push_back(route);
}

void read_addresses(YamlSection& item, const Config& config, InterfaceConfig& interface) {
    const std::vector<YamlItem> items = item.list("addresses");
    if (items.size() > kMaxConfiguredAddresses)
        item.at("addresses").complain("has " + std::to_string(items.size()) +
                                      " addresses; there may be " +
                                      std::to_string(kMaxConfiguredAddresses));
    const auto holds = [](const InterfaceConfig& one, const IpAddress& address) {
        return std::any_of(one.addresses.begin(), one.addresses.end(),
                           [&](const IpPrefix& ours) { return ours.address == address; });
    };
    for (const YamlItem& address_item : items) {
        IpPrefix prefix;
        if (!address_item.read(prefix, parse_interface_address)) continue;
        bool taken = holds(interface, prefix.address);
        for (const InterfaceConfig& other : config.interfaces)
            taken = taken || holds(other, prefix.address);
        if (taken) address_item.complain(prefix.address.to_string() + " appears twice");
        const bool port_known = interface.port < config.ports.size();
        if (prefix.address.is_v6() && port_known &&
            config.ports[interface.port].mtu < kSmallestV6Mtu)
            address_item.complain("IPv6 needs an MTU of at least " +
                                  std::to_string(kSmallestV6Mtu) + "; port " +
                                  config.ports[interface.port].name + " has " +
                                  std::to_string(config.ports[interface.port].mtu));
        interface.addresses.push_back(prefix);
    }
}

auto congestion() {
    using enum shm::CongestionAlgorithm;
    return one_of<shm::CongestionAlgorithm>({{"cubic", Cubic}, {"reno", Reno}, {"dctcp", Dctcp},
                                             {"bbr", Bbr}});
}

auto ecn() {
    using enum EcnPolicy;
    return one_of<EcnPolicy>({{"off", Off}, {"passive", Passive}, {"on", On}});
}

auto pacing() {
    return one_of<PacingPolicy>({{"auto", PacingPolicy::Auto}, {"on", PacingPolicy::On}});
}

auto fast_open() {
    using enum FastOpenPolicy;
    return one_of<FastOpenPolicy>(
        {{"off", Off}, {"client", Client}, {"server", Server}, {"both", Both}});
}

auto mtu_probing() {
    using enum MtuProbing;
    return one_of<MtuProbing>({{"off", Off}, {"black_hole", BlackHole}, {"always", Always}});
}

void read_interface(YamlSection item, Config& config) {
    InterfaceConfig interface;
    const auto& others = config.interfaces;
    if (item.required("name", interface.name, parse_name) &&
        std::any_of(others.begin(), others.end(),
                    [&](const InterfaceConfig& other) { return other.name == interface.name; }))
        item.at("name").complain("another interface has the name " + interface.name);

    const auto parse_port = [&](const std::string& text) -> Parsed<std::uint16_t> {
        std::string names;
        for (std::size_t i = 0; i < config.ports.size(); ++i) {
            if (config.ports[i].name == text) return static_cast<std::uint16_t>(i);
            names += (names.empty() ? "" : ", ") + config.ports[i].name;
        }
        return std::unexpected(quoted(text) + " is not a port; " +
                               (names.empty() ? "there are none" : "there are: " + names));
    };
    interface.port = static_cast<std::uint16_t>(shm::kMaxPorts);  // none, for read_addresses()
    const bool port = item.required("port", interface.port, parse_port);
    const bool vlan = !item.has("vlan") || item.at("vlan").read(interface.vlan, parse_vlan);
    item.at("vlan");  // asked for, whether there or not
    if (port && vlan &&
        std::any_of(others.begin(), others.end(), [&](const InterfaceConfig& other) {
            return other.port == interface.port && other.vlan == interface.vlan;
        }))
        item.at(item.has("vlan") ? "vlan" : "port")
            .complain("another interface of port " + config.ports[interface.port].name +
                      (interface.vlan == 0 ? " is untagged"
                                           : " has VLAN " + std::to_string(interface.vlan)) +
                      "; give both sets of addresses to one");
    read_addresses(item, config, interface);
    const std::vector<YamlItem> routes = item.list("routes");
    if (routes.size() > kMaxConfiguredRoutes)
        item.at("routes").complain("has " + std::to_string(routes.size()) +
                                   " routes; there may be " +
                                   std::to_string(kMaxConfiguredRoutes));
    for (const YamlItem& route : routes) read_route(YamlSection(route), interface);
    shm::CongestionAlgorithm algorithm{};
    if (item.optional("congestion", algorithm, congestion())) interface.congestion = algorithm;
    EcnPolicy policy{};
    if (item.optional("ecn", policy, ecn())) interface.ecn = policy;
    PacingPolicy pace{};
    if (item.optional("pacing", pace, pacing())) interface.pacing = pace;
    item.reject_unknown_keys();
    config.interfaces.push_back(std::move(interface));
}

void read_sessions(YamlSection sessions, SessionSettings& settings) {
    constexpr std::uint64_t kMiB = 1u << 20;
    sessions.optional("isolation", settings.isolation,
                      one_of<IsolationPolicy>({{"auto", IsolationPolicy::Auto},
                                               {"shared", IsolationPolicy::Shared},
                                               {"private", IsolationPolicy::Private}}));
    sessions.optional("tx_arena", settings.tx_arena_bytes, size(kMiB, 4096 * kMiB));
    sessions.optional("max_sessions", settings.max_sessions,
                      integer(1u, static_cast<std::uint32_t>(shm::kMaxSessions)));
    sessions.optional("max_channels", settings.max_channels,
                      integer(1u, static_cast<std::uint32_t>(shm::kMaxChannels)));
    sessions.optional("max_listeners", settings.max_listeners, integer(1u, 4096u));
    sessions.optional("max_connections", settings.max_connections, integer(1u, 4'194'304u));
    sessions.optional("max_rx_buffers", settings.max_rx_buffers, integer(16u, 4'194'304u));
    sessions.reject_unknown_keys();
}

void read_ephemeral_ports(YamlSection& item, TcpConfig& tcp) {
    const YamlItem range = item.at("ephemeral_ports");
    if (!item.has("ephemeral_ports")) return;
    const std::vector<YamlItem> ends = range.items();
    const auto port = integer(std::uint16_t{1024}, std::uint16_t{65'535});
    if (ends.size() != 2) return range.complain("takes two ports, the first and the last");
    if (!ends[0].read(tcp.first_port, port) || !ends[1].read(tcp.last_port, port)) return;
    if (tcp.last_port < tcp.first_port || tcp.last_port - tcp.first_port < 999)
        range.complain("holds fewer than 1000 ports");
}

void read_tcp(YamlSection item, TcpConfig& tcp) {
    item.optional("min_rto", tcp.min_rto, duration(1ms, 10s));
    item.optional("max_rto", tcp.max_rto, duration(1s, 10min));
    item.optional("initial_rto", tcp.initial_rto, duration(1ms, 60s));
    item.optional("delayed_ack", tcp.delayed_ack, duration(0us, 500ms));  // RFC 1122 §4.2.3.2
    item.optional("time_wait", tcp.time_wait, duration(0us, 10min));
    item.optional("fin_wait2", tcp.fin_wait2, duration(1s, 1h));
    item.optional("keep_idle", tcp.keep_idle, duration(1s, 720h));
    item.optional("keep_interval", tcp.keep_interval, duration(1s, 24h));
    item.optional("keep_count", tcp.keep_count, integer(1u, 127u));
    item.optional("syn_retries", tcp.syn_retries, integer(1u, 127u));
    item.optional("retries", tcp.retries, integer(1u, 127u));
    item.optional("receive_buffer", tcp.receive_buffer_bytes, size(16u << 10, 1u << 30));
    item.optional("send_buffer", tcp.send_buffer_bytes, size(16u << 10, 1u << 30));
    item.optional("congestion", tcp.congestion, congestion());
    item.optional("ecn", tcp.ecn, ecn());
    item.optional("pacing", tcp.pacing, pacing());
    item.optional("fast_open", tcp.fast_open, fast_open());
    item.optional("mtu_probing", tcp.mtu_probing, mtu_probing());
    item.optional("resets_per_second", tcp.resets_per_second, integer(1u, 10'000'000u));
    item.optional("syn_cookies", tcp.syn_cookies, parse_bool);
    read_ephemeral_ports(item, tcp);
    if (tcp.min_rto > tcp.max_rto)
        item.at(item.has("min_rto") ? "min_rto" : "max_rto")
            .complain("min_rto is longer than max_rto");
    else if (tcp.initial_rto < tcp.min_rto || tcp.initial_rto > tcp.max_rto)
        item.at("initial_rto").complain("initial_rto is not between min_rto and max_rto");
    item.reject_unknown_keys();
}

void read_log(YamlSection item, LogLevel& level) {
    item.optional("level", level,
                  one_of<LogLevel>({{"debug", LogLevel::Debug},
                                    {"info", LogLevel::Info},
                                    {"warning", LogLevel::Warning},
                                    {"error", LogLevel::Error}}));
    item.reject_unknown_keys();
}

Config read(const YAML::Node& document, const Machine& machine, YamlFindings& findings) {
    Config config;
    config.file = findings.file;
    YamlSection root(YamlItem(document, document.Mark(), "", "", findings));
    read_control(root.section("control"), machine, config.control);
    if (root.present("dataplane"))
        read_dataplane(root.section("dataplane"), machine, config.dataplane);

    const auto list = [&](const std::string& key, std::size_t limit) {
        if (!root.present(key)) return std::vector<YamlItem>();
        std::vector<YamlItem> items = root.list(key);
        if (items.size() > limit)
            root.at(key).complain("has " + std::to_string(items.size()) +
                                  " entries; there may be " + std::to_string(limit));
        return items;
    };
    const std::vector<YamlItem> ports = list("ports", shm::kMaxPorts);
    if (root.has("ports") && ports.empty()) root.at("ports").complain("needs at least one port");
    for (const YamlItem& port : ports) read_port(YamlSection(port), config.ports);
    for (const YamlItem& interface : list("interfaces", shm::kMaxInterfaces))
        read_interface(YamlSection(interface), config);

    read_sessions(root.section("sessions"), config.sessions);
    read_tcp(root.section("tcp"), config.tcp);
    read_log(root.section("log"), config.log_level);
    root.reject_unknown_keys();
    return config;
}

/// Where the documents of a text begin. YAML::LoadAll would tell, but never comes back from a text
/// that begins in the middle of a list: its parser finds an empty document there for ever.
class DocumentStarts : public YAML::EventHandler {
public:
    explicit DocumentStarts(const std::string& text) {
        std::istringstream stream(text);
        YAML::Parser parser(stream);
        while (marks.size() < 2 && parser.HandleNextDocument(*this)) {
        }
    }
    void OnDocumentStart(const YAML::Mark& mark) override { marks.push_back(mark); }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
    void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
    void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  const std::string&) override {}
    void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                         YAML::EmitterStyle::value) override {}
    void OnSequenceEnd() override {}
    void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                    YAML::EmitterStyle::value) override {}
    void OnMapEnd() override {}

    std::vector<YAML::Mark> marks;  ///< two at most
};

std::string place(const YAML::Mark& mark) {
    return ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1);
}

Result<std::string, std::string> contents(const std::filesystem::path& file) {
    std::error_code error;
    if (std::filesystem::is_directory(file, error))
        return std::unexpected("is a directory; give a file");
    if (!std::filesystem::exists(file, error))
        return std::unexpected("does not exist; the packaged examples are beside chirud.yaml in "
                               "the configuration folder, or in configs/ of the source tree");
    std::ifstream stream(file, std::ios::binary);
    if (!stream) return std::unexpected("cannot be read: permission denied");
    if (std::filesystem::file_size(file, error) > kMaxFileBytes)
        return std::unexpected("is longer than 1 MiB, and so hardly a configuration");
    return std::string(std::istreambuf_iterator<char>(stream), {});
}

}  // namespace

Result<Config, std::vector<std::string>> load_config(const std::filesystem::path& file,
                                                     const Machine& machine) {
    YamlFindings findings{.file = file.string(), .mistakes = {}, .keys = {}};
    const auto fail = [&](const std::string& what) {
        findings.mistakes.push_back(findings.file + what);
        return std::unexpected(findings.mistakes);
    };
    const Result<std::string, std::string> text = contents(file);
    if (!text) return fail(": " + text.error());
    try {
        const std::vector<YAML::Mark> starts = DocumentStarts(*text).marks;
        if (starts.size() > 1 && starts[0].pos == starts[1].pos)
            return fail(place(starts[0]) + ": is not YAML: nothing can begin like this");
        if (starts.size() > 1)
            return fail(place(starts[1]) + ": holds more than one YAML document (\"---\")");
        const YAML::Node document = YAML::Load(*text);
        if (document.IsNull())
            return fail(": is empty; at least dataplane, ports and interfaces are needed");
        Config config = read(document, machine, findings);
        if (findings.mistakes.empty()) return config;
    } catch (const YAML::Exception& e) {
        const bool tabs = text->starts_with('\t') || text->find("\n\t") != std::string::npos;
        return fail((e.mark.is_null() ? std::string() : place(e.mark)) +
                    ": is not YAML: " + e.msg + (tabs ? " (tabs cannot indent; use spaces)" : ""));
    }
    return std::unexpected(std::move(findings.mistakes));
}

std::set<std::string> config_keys() {
    constexpr const char* kOneOfEach = R"(
dataplane: { cores: [0] }
ports: [ { name: a, device: net_null0 } ]
interfaces: [ { name: a, port: a, addresses: [10.0.0.2/24], routes: [ { to: default } ] } ]
)";
    YamlFindings findings;
    read(YAML::Load(kOneOfEach), Machine{{0}, {}}, findings);
    return findings.keys;
}

Machine this_machine() {
    Machine machine;
    machine.has_group = [](const std::string& name) { return getgrnam(name.c_str()) != nullptr; };
    std::ifstream online("/sys/devices/system/cpu/online");  // "0-3,5"
    unsigned first = 0;
    while (online >> first) {
        unsigned last = first;
        if (online.peek() == '-') {
            online.get();
            online >> last;
        }
        for (unsigned core = first; core <= last; ++core) machine.cores.insert(core);
        if (online.peek() == ',') online.get();
    }
    return machine;
}

}  // namespace chiru::daemon
