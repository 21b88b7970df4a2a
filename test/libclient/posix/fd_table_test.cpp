// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/fd_table.hpp"

#include <catch2/catch.hpp>

#include <memory>
#include <vector>

using namespace chiru::posix;

namespace {

struct Probe final : Object {
    Probe(int& closed_count, int& gone_count)
        : Object(Kind::Socket), closed(closed_count), gone(gone_count) {}
    ~Probe() override { ++gone; }
    void last_descriptor_closed() override { ++closed; }
    int& closed;
    int& gone;
};

}  // namespace

TEST_CASE("a descriptor names what was installed, and numbers nobody installed name nothing",
          "[posix]") {
    auto table = std::make_unique<FdTable>();
    int closed = 0, gone = 0;
    auto* probe = new Probe(closed, gone);
    REQUIRE(table->install(1'023, *probe));
    CHECK(table->find(1'023) == probe);
    for (const int fd : {-1, 0, 1'022, 1'024, FdTable::kEnd, FdTable::kEnd - 1})
        CHECK(table->find(fd) == nullptr);
    table->remove(1'023);
    CHECK(gone == 1);
}

TEST_CASE("an object lives as long as one of its names", "[posix]") {
    auto table = std::make_unique<FdTable>();
    int closed = 0, gone = 0;
    auto* probe = new Probe(closed, gone);
    REQUIRE(table->install(3, *probe));
    REQUIRE(table->install(70'000, *probe));
    table->remove(3);
    CHECK(closed == 0);
    table->remove(3);  // closing twice is the program's mistake, and no harm
    CHECK(closed == 0);
    table->remove(70'000);
    CHECK(closed == 1);
    CHECK(gone == 1);
}

TEST_CASE("installing over a name lets go of what it named", "[posix]") {
    auto table = std::make_unique<FdTable>();
    int closed = 0, gone = 0, other_closed = 0, other_gone = 0;
    REQUIRE(table->install(5, *new Probe(closed, gone)));
    REQUIRE(table->install(5, *new Probe(other_closed, other_gone)));
    CHECK(gone == 1);
    CHECK(other_gone == 0);
    Object* same = table->find(5);
    REQUIRE(table->install(5, *same));
    CHECK(other_gone == 0);
    table->remove(5);
    CHECK(other_gone == 1);
}

TEST_CASE("a call that sleeps keeps its object, though it is closed meanwhile", "[posix]") {
    auto table = std::make_unique<FdTable>();
    int closed = 0, gone = 0;
    auto* probe = new Probe(closed, gone);
    REQUIRE(table->install(9, *probe));
    {
        const Pin pin(*probe);
        table->remove(9);
        CHECK(closed == 1);
        CHECK(gone == 0);
    }
    CHECK(gone == 1);
}

TEST_CASE("numbers beyond the table are the kernel's alone", "[posix]") {
    auto table = std::make_unique<FdTable>();
    int closed = 0, gone = 0;
    Probe probe(closed, gone);
    CHECK_FALSE(table->install(FdTable::kEnd, probe));
    CHECK_FALSE(table->install(-1, probe));
}

TEST_CASE("a range visits its entries in order, and no others", "[posix]") {
    auto table = std::make_unique<FdTable>();
    int closed = 0, gone = 0;
    for (const int fd : {4, 5'000, 500'000, 6}) table->install(fd, *new Probe(closed, gone));
    std::vector<int> seen;
    table->for_each(5, 600'000, [&](int fd, Object&) { seen.push_back(fd); });
    CHECK(seen == std::vector<int>{6, 5'000, 500'000});
    table->for_each(0, FdTable::kEnd - 1, [&](int fd, Object&) { table->remove(fd); });
    CHECK(gone == 4);
}
