// SPDX-License-Identifier: Apache-2.0
#include "cli/json.hpp"

#include <cmath>
#include <cstddef>
#include <cstdio>

namespace chiru::cli {
namespace {

/// Bytes of the UTF-8 sequence that `text` begins with, 0 if it is none (RFC 3629 §4).
std::size_t utf8_length(std::string_view text) {
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const auto tail = [&](std::size_t i) { return i < text.size() && (at(i) & 0xc0) == 0x80; };
    const unsigned lead = at(0);
    if (lead < 0x80) return 1;
    if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0;
    if ((lead & 0xf0) == 0xe0 && tail(1) && tail(2)) {
        const bool overlong = lead == 0xe0 && at(1) < 0xa0;
        const bool surrogate = lead == 0xed && at(1) >= 0xa0;
        return overlong || surrogate ? 0 : 3;
    }
    if (lead >= 0xf0 && lead <= 0xf4 && tail(1) && tail(2) && tail(3)) {
        const bool overlong = lead == 0xf0 && at(1) < 0x90;
        const bool too_large = lead == 0xf4 && at(1) >= 0x90;
        return overlong || too_large ? 0 : 4;
    }
    return 0;
}

}  // namespace

void JsonWriter::key(std::string_view name) {
    comma();
    quoted(name);
    out_ += ':';
}

void JsonWriter::value(std::string_view text) {
    comma();
    quoted(text);
    comma_due_ = true;
}

void JsonWriter::value(bool truth) {
    comma();
    out_ += truth ? "true" : "false";
    comma_due_ = true;
}

void JsonWriter::value(double number) {
    if (!std::isfinite(number)) return null();
    comma();
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.6g", number);
    out_ += digits;
    comma_due_ = true;
}

void JsonWriter::null() {
    comma();
    out_ += "null";
    comma_due_ = true;
}

// Program names come from clients: whatever is not UTF-8 becomes U+FFFD.
void JsonWriter::quoted(std::string_view text) {
    out_ += '"';
    while (!text.empty()) {
        const char c = text[0];
        const std::size_t length = utf8_length(text);
        if (c == '"' || c == '\\') {
            out_ += '\\';
            out_ += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
            out_ += escape;
        } else if (length == 0) {
            out_ += "\\ufffd";
        } else {
            out_ += text.substr(0, length);
        }
        text.remove_prefix(length == 0 ? 1 : length);
    }
    out_ += '"';
}

}  // namespace chiru::cli
