// SPDX-License-Identifier: Apache-2.0
//
// Writes JSON (RFC 8259) in one pass, without a tree in between: 100 000 connections are printed as
// they are read.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace chiru::cli {

class JsonWriter {
public:
    explicit JsonWriter(std::string& out) : out_(out) {}

    void begin_object() { open('{'); }
    void end_object() { close('}'); }
    void begin_array() { open('['); }
    void end_array() { close(']'); }

    void key(std::string_view name);
    void value(std::string_view text);
    void value(const char* text) { value(std::string_view(text)); }
    void value(bool truth);
    void value(double number);  ///< null if it is not finite
    void null();
    template <std::integral T>
    void value(T number) {
        comma();
        out_ += std::to_string(number);
        comma_due_ = true;
    }

    template <class T>
    void field(std::string_view name, const T& content) {
        key(name);
        value(content);
    }

private:
    void comma() {
        if (comma_due_) out_ += ',';
        comma_due_ = false;
    }
    void open(char bracket) {
        comma();
        out_ += bracket;
    }
    void close(char bracket) {
        out_ += bracket;
        comma_due_ = true;
    }
    void quoted(std::string_view text);

    std::string& out_;
    bool comma_due_ = false;
};

}  // namespace chiru::cli
