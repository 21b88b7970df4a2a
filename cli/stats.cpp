// SPDX-License-Identifier: Apache-2.0
//
// chiructl stats: every counter of every shard, by the names that the daemon gives them.
#include "cli/commands.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

namespace chiru::cli {
namespace {

/// One line of the answer. Values are of the chosen shards, in order.
struct Line {
    std::string name;
    shm::Unit unit{};
    double total = 0;
    std::vector<double> shards;
    std::uint64_t value = 0;  ///< the total so far, exact
};

const char* to_string(shm::Unit unit) {
    switch (unit) {
    case shm::Unit::Frames: return "frames";
    case shm::Unit::Bytes: return "bytes";
    case shm::Unit::Events: return "events";
    case shm::Unit::Micros: return "us";
    }
    return "?";
}

std::size_t counter_count(const View& view) {
    return std::min<std::size_t>(view.directory->counter_count, shm::kMaxCounters);
}

std::vector<std::uint32_t> chosen_shards(const View& view, const StatsOptions& options) {
    std::vector<std::uint32_t> shards;
    for (std::uint32_t i = 0; i < view.shard_count(); ++i)
        if (!options.shard || *options.shard == i) shards.push_back(i);
    return shards;
}

bool wanted(std::string_view name, const StatsOptions& options) {
    if (options.filters.empty()) return true;
    return std::ranges::any_of(options.filters, [&](const std::string& part) {
        return name.find(part) != std::string_view::npos;
    });
}

/// `number(shard, counter)` is what one cell holds.
template <class Number>
std::vector<Line> collect(const View& view, const StatsSample& sample,
                          const StatsOptions& options, Number&& number) {
    std::vector<Line> lines;
    const std::vector<std::uint32_t> shards = chosen_shards(view, options);
    for (std::size_t i = 0; i < counter_count(view); ++i) {
        const shm::CounterName& counter = view.directory->counter_names[i];
        if (!wanted(counter.name.view(), options)) continue;
        Line line;
        line.name = printable(counter.name.view());
        line.unit = counter.unit;
        for (const std::uint32_t shard : shards) {
            line.shards.push_back(number(shard, i));
            line.total += line.shards.back();
            line.value += sample.values[shard][i];
        }
        lines.push_back(std::move(line));
    }
    return lines;
}

std::vector<Line> values_of(const View& view, const StatsSample& sample,
                            const StatsOptions& options) {
    return collect(view, sample, options, [&](std::uint32_t shard, std::size_t counter) {
        return static_cast<double>(sample.values[shard][counter]);
    });
}

std::vector<Line> rates_of(const View& view, const StatsSample& before, const StatsSample& after,
                           const StatsOptions& options) {
    const double seconds = static_cast<double>(after.at_us - before.at_us) / 1e6;
    return collect(view, after, options, [&](std::uint32_t shard, std::size_t counter) {
        const std::uint64_t grown = after.values[shard][counter] - before.values[shard][counter];
        return seconds > 0 ? static_cast<double>(grown) / seconds : 0.0;
    });
}

void write_values(JsonWriter& json, const View& view, const StatsSample& sample,
                  const StatsOptions& options) {
    json.key("counters");
    json.begin_object();
    for (const Line& line : values_of(view, sample, options)) json.field(line.name, line.value);
    json.end_object();
    json.key("shards");
    json.begin_array();
    for (const std::uint32_t shard : chosen_shards(view, options)) {
        json.begin_object();
        json.field("shard", shard);
        json.key("counters");
        json.begin_object();
        StatsOptions one = options;
        one.shard = shard;
        for (const Line& line : values_of(view, sample, one)) json.field(line.name, line.value);
        json.end_object();
        json.end_object();
    }
    json.end_array();
}

template <class Cell>
std::string render(const View& view, const std::vector<Line>& lines, const StatsOptions& options,
                   const std::vector<Table::Column>& totals, Cell&& cell) {
    const std::vector<std::uint32_t> shards = chosen_shards(view, options);
    std::vector<std::string> titles;
    for (const std::uint32_t shard : shards) titles.push_back("SHARD " + std::to_string(shard));
    std::vector<Table::Column> columns{{"COUNTER"}};
    columns.insert(columns.end(), totals.begin(), totals.end());
    if (options.per_shard)
        for (const std::string& title : titles) columns.push_back({title, Align::Right});
    columns.push_back({"UNIT"});
    Table table(columns);
    for (const Line& line : lines) {
        if (line.total == 0 && !options.zeros) continue;
        std::vector<std::string> cells{line.name};
        cell(cells, line);
        cells.emplace_back(to_string(line.unit));
        table.add(cells);
    }
    return table.empty() ? std::string() : table.render();
}

std::string whole(double number) {
    return std::to_string(static_cast<std::uint64_t>(number));
}

}  // namespace

StatsSample sample_stats(const View& view, std::int64_t now_us) {
    StatsSample sample;
    sample.at_us = now_us;
    for (std::uint32_t shard = 0; shard < view.shard_count(); ++shard) {
        std::vector<std::uint64_t>& values = sample.values.emplace_back();
        for (std::size_t i = 0; i < counter_count(view); ++i)
            values.push_back(view.directory->shards[shard].counters.read(i));
    }
    return sample;
}

std::string show_stats(const View& view, const StatsSample& sample, const StatsOptions& options,
                       Form form) {
    if (form == Form::Json) {
        std::string out;
        JsonWriter json(out);
        json.begin_object();
        write_values(json, view, sample, options);
        json.end_object();
        return out + "\n";
    }
    const std::string text =
        render(view, values_of(view, sample, options), options, {{"TOTAL", Align::Right}},
               [&](std::vector<std::string>& cells, const Line& line) {
                   cells.push_back(std::to_string(line.value));
                   if (options.per_shard)
                       for (const double value : line.shards) cells.push_back(whole(value));
               });
    return text.empty() ? "no counter has moved (--all shows zeros)\n" : text;
}

std::string show_rates(const View& view, const StatsSample& before, const StatsSample& after,
                       const StatsOptions& options, Form form) {
    const std::vector<Line> lines = rates_of(view, before, after, options);
    if (form == Form::Json) {
        std::string out;
        JsonWriter json(out);
        json.begin_object();
        json.field("seconds", static_cast<double>(after.at_us - before.at_us) / 1e6);
        json.key("rates");
        json.begin_object();
        for (const Line& line : lines) json.field(line.name, line.total);
        json.end_object();
        write_values(json, view, after, options);
        json.end_object();
        return out + "\n";
    }
    const std::string text =
        render(view, lines, options, {{"PER SECOND", Align::Right}, {"TOTAL", Align::Right}},
               [&](std::vector<std::string>& cells, const Line& line) {
                   cells.push_back(rate_text(line.total));
                   cells.push_back(std::to_string(line.value));
                   if (options.per_shard)
                       for (const double rate : line.shards) cells.push_back(rate_text(rate));
               });
    return text.empty() ? "nothing moved\n" : text;
}

}  // namespace chiru::cli
