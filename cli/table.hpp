// SPDX-License-Identifier: Apache-2.0
//
// Text in aligned columns. Cells lie one behind the other in one string, so that a table of
// 100 000 rows is cheap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace chiru::cli {

enum class Align : std::uint8_t { Left, Right };

class Table {
public:
    struct Column {
        std::string_view title;
        Align align = Align::Left;
    };
    explicit Table(std::vector<Column> columns);

    /// One cell for each column.
    void add(std::initializer_list<std::string_view> cells);
    void add(const std::vector<std::string>& cells);
    bool empty() const { return ends_.empty(); }

    /// With titles; every line ends with a newline and without blanks.
    std::string render() const;

private:
    void add_cell(std::string_view text, std::size_t column);

    std::vector<Column> columns_;
    std::vector<std::size_t> widths_;
    std::string cells_;
    std::vector<std::size_t> ends_;  ///< of each cell in cells_
};

/// What may be shown of a text that a client chose: control characters would speak to the terminal.
std::string printable(std::string_view text);

}  // namespace chiru::cli
