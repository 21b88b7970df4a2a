// SPDX-License-Identifier: Apache-2.0
#include "cli/format.hpp"
#include "cli/json.hpp"
#include "cli/table.hpp"

#include <catch2/catch.hpp>

#include <limits>

using namespace chiru::cli;

TEST_CASE("quantities keep three digits and the right unit", "[cli]") {
    CHECK(count_text(0) == "0");
    CHECK(count_text(999) == "999");
    CHECK(count_text(1000) == "1.00k");
    CHECK(count_text(999'499) == "999k");
    CHECK(count_text(999'999) == "1.00M");
    CHECK(count_text(12'345'678) == "12.3M");
    CHECK(count_text(~0ull) == "18.4E");
    CHECK(count_text(12'345'678, Digits::Exact) == "12345678");
    CHECK(bytes_text(1023) == "1023");
    CHECK(bytes_text(1024) == "1.00K");
    CHECK(bytes_text(64u << 20) == "64.0M");
    CHECK(bytes_text(~0ull) == "16.0E");
    CHECK(rate_text(0) == "0.0");
    CHECK(rate_text(99.94) == "99.9");
    CHECK(rate_text(1'234'567) == "1.23M");
    CHECK(counted(1, "client") == "1 client");
    CHECK(counted(0, "client") == "0 clients");
}

TEST_CASE("durations read as people say them", "[cli]") {
    CHECK(duration_text(-5) == "0us");
    CHECK(duration_text(850) == "850us");
    CHECK(duration_text(1'234) == "1.23ms");
    CHECK(duration_text(123'400) == "123.4ms");
    CHECK(duration_text(4'200'000) == "4.20s");
    CHECK(duration_text(192'000'000) == "3m12s");
    CHECK(duration_text(7'500'000'000) == "2h05m");
    CHECK(duration_text(273'600'000'000) == "3d04h");
}

TEST_CASE("JSON is valid whatever the text is", "[cli]") {
    std::string out;
    JsonWriter json(out);
    json.begin_object();
    json.field("quote\"", "a\\b\n\x01");
    json.field("utf8", "\xc3\xa9 \xff \xe2\x82 \xed\xa0\x80");
    json.field("number", -5);
    json.field("yes", true);
    json.field("ratio", 0.5);
    json.field("infinite", std::numeric_limits<double>::infinity());
    json.key("list");
    json.begin_array();
    json.value(1u);
    json.begin_array();
    json.end_array();
    json.null();
    json.end_array();
    json.end_object();
    CHECK(out == "{\"quote\\\"\":\"a\\\\b\\u000a\\u0001\","
                 "\"utf8\":\"\xc3\xa9 \\ufffd \\ufffd\\ufffd \\ufffd\\ufffd\\ufffd\","
                 "\"number\":-5,\"yes\":true,\"ratio\":0.5,\"infinite\":null,"
                 "\"list\":[1,[],null]}");
}

TEST_CASE("columns are as wide as their widest cell, and lines end without blanks", "[cli]") {
    Table table({{"NAME"}, {"N", Align::Right}, {"NOTE"}});
    table.add({"a", "1", ""});
    table.add({"longer", "1000", "x"});
    CHECK(table.render() == "NAME       N  NOTE\n"
                            "a          1\n"
                            "longer  1000  x\n");
}
