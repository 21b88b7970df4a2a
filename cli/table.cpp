// SPDX-License-Identifier: Apache-2.0
#include "cli/table.hpp"

#include <algorithm>

namespace chiru::cli {

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {
    for (const Column& column : columns_) widths_.push_back(column.title.size());
}

void Table::add_cell(std::string_view text, std::size_t column) {
    cells_ += text;
    ends_.push_back(cells_.size());
    widths_[column] = std::max(widths_[column], text.size());
}

void Table::add(std::initializer_list<std::string_view> cells) {
    std::size_t column = 0;
    for (const std::string_view cell : cells) add_cell(cell, column++);
}

void Table::add(const std::vector<std::string>& cells) {
    std::size_t column = 0;
    for (const std::string& cell : cells) add_cell(cell, column++);
}

std::string Table::render() const {
    std::string out;
    std::size_t line = 0;  // where the current one begins
    const auto put = [&](std::string_view text, std::size_t column) {
        const std::size_t blanks = widths_[column] - text.size();
        if (column > 0) out += "  ";
        if (columns_[column].align == Align::Right) out.append(blanks, ' ');
        out += text;
        if (columns_[column].align == Align::Left) out.append(blanks, ' ');
        if (column + 1 < columns_.size()) return;
        while (out.size() > line && out.back() == ' ') out.pop_back();
        out += '\n';
        line = out.size();
    };
    for (std::size_t i = 0; i < columns_.size(); ++i) put(columns_[i].title, i);
    std::size_t begin = 0;
    for (std::size_t i = 0; i < ends_.size(); ++i) {
        put(std::string_view(cells_).substr(begin, ends_[i] - begin), i % columns_.size());
        begin = ends_[i];
    }
    return out;
}

std::string printable(std::string_view text) {
    std::string safe(text);
    for (char& c : safe)
        if (c < ' ' || c > '~') c = '?';
    return safe;
}

}  // namespace chiru::cli
