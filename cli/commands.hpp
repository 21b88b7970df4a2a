// SPDX-License-Identifier: Apache-2.0
//
// The commands of chiructl. Each turns a view into text or JSON, and does nothing else; so each is
// tested on memory made by hand.
#pragma once

#include "base/result.hpp"
#include "cli/format.hpp"
#include "cli/view.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace chiru::cli {

enum class Form : std::uint8_t { Text, Json };

std::string show_status(const View& view, Form form);
std::string show_ports(const View& view, Form form);
std::string show_routes(const View& view, Form form);
std::string show_paths(const View& view, Form form);
std::string show_neighbors(const View& view, Form form);

struct ClientsOptions {
    bool observers = false;
    Digits digits = Digits::Rounded;
};
std::string show_clients(const View& view, const ClientsOptions& options, Form form);

enum class Drawing : std::uint8_t { Boxes, Ascii };
std::string show_topology(const View& view, Drawing drawing, Form form);

struct ConnsOptions {
    std::vector<std::string> states{};  ///< as `chiructl conns` prints them, in any case; none: all
    bool listeners_only = false;
    std::optional<std::uint16_t> port{};  ///< on either side
    std::optional<std::int32_t> pid{};
    std::optional<std::uint32_t> shard{};
    std::string sort{};       ///< one of conns_sort_keys(); empty: as they lie
    std::size_t limit = 0;  ///< 0: all
    Digits digits = Digits::Rounded;
};
/// An unknown state is an error, with the list of those there are.
Result<std::string, std::string> show_conns(const View& view, const ConnsOptions& options,
                                            Form form);
std::vector<std::string> conns_sort_keys();

std::string show_sockets(const View& view, Form form);

struct StatsOptions {
    std::vector<std::string> filters{};  ///< parts of names; none: all
    bool zeros = false;                ///< also counters that are zero
    bool per_shard = false;
    std::optional<std::uint32_t> shard{};
};
/// All counters at one moment: [shard][counter].
struct StatsSample {
    std::int64_t at_us = 0;
    std::vector<std::vector<std::uint64_t>> values;
};
StatsSample sample_stats(const View& view, std::int64_t now_us);
std::string show_stats(const View& view, const StatsSample& sample, const StatsOptions& options,
                       Form form);
/// Per second, from one sample to the next.
std::string show_rates(const View& view, const StatsSample& before, const StatsSample& after,
                       const StatsOptions& options, Form form);

}  // namespace chiru::cli
