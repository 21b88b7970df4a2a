// SPDX-License-Identifier: Apache-2.0
//
// Flights of a large window: what is looked at for what an ACK tells.
#include "stack/tcp/send_queue.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

using namespace chiru;

namespace {

constexpr std::uint32_t kFlights = 5000;
constexpr std::uint32_t kLength = 100;

/// As many flights as that, sent ten in a microsecond.
struct Window {
    Window() : records(8), flights(2 * kFlights),
               queue({records.data(), 8}, {flights.data(), 2 * kFlights}) {
        queue.append(c, 0, {0, kFlights * kLength, shm::kTxArena, 0});
        for (std::uint32_t i = 0; i < kFlights; ++i) queue.launch(c, kLength, false, i / 10);
    }
    /// Those in flight, in the order of sending.
    std::vector<std::uint32_t> in_flight() const {
        std::vector<std::uint32_t> all;
        for (tcp::Index i = c.flight_oldest; i != tcp::kNil; i = flights[i].sent_next)
            all.push_back(flights[i].first.raw() / kLength);
        return all;
    }
    tcp::Index find(std::uint32_t flight) {
        std::uint32_t steps = 1024;
        const tcp::Index i = queue.find_flight(c, tcp::Seq(flight * kLength), steps);
        looked = 1024 - steps;
        return i;
    }
    tcp::Connection c;
    std::vector<tcp::SendEntry> records;
    std::vector<tcp::Flight> flights;
    tcp::SendQueue queue;
    std::uint32_t looked = 0;
};

}  // namespace

TEST_CASE("Neighbours that the peer has are one flight, found at once", "[tcp][rfc6675]") {
    Window w;
    std::uint32_t most = 0;
    for (std::uint32_t i = 1; i < kFlights; ++i) {
        if (i % 100 == 50) continue;
        const tcp::Index flight = w.find(i);
        most = std::max(most, w.looked);
        REQUIRE(flight != tcp::kNil);
        w.queue.mark_sacked(w.c, flight);
    }
    CHECK(most <= 3);
    CHECK(w.queue.flights().used() == 1 + 50 + 51);
    CHECK(w.c.sacked_bytes == (kFlights - 51) * kLength);
    CHECK(w.c.sacked_segments == kFlights - 51);
    CHECK(w.in_flight().size() == 51);
    for (std::uint32_t hole = 50; hole < kFlights; hole += 100)
        w.queue.mark_sacked(w.c, w.find(hole));
    CHECK(w.queue.flights().used() == 2);
    while (w.c.flight_head != tcp::kNil) w.queue.land(w.c, w.c.flight_head);
    CHECK(w.c.sacked_bytes == 0);
    CHECK(w.c.sacked_segments == 0);
    CHECK(w.in_flight().empty());
}

TEST_CASE("A search that is too long goes on with the next ACK", "[tcp][rfc6675]") {
    Window w;
    CHECK(w.find(kFlights / 2) == tcp::kNil);
    CHECK(w.looked == 1024);
    CHECK(w.find(kFlights / 2) == tcp::kNil);
    CHECK(w.find(kFlights / 2) != tcp::kNil);
    CHECK(w.looked < 500);
    CHECK(w.find(0) == w.c.flight_head);  // either end is near
    CHECK(w.looked == 0);
    CHECK(w.find(kFlights - 1) != tcp::kNil);
    CHECK(w.looked == 0);
    CHECK(w.find(kFlights + 1) == tcp::kNil);
}

TEST_CASE("What is in flight is known in the order of sending, whatever went again or was found",
          "[tcp][rfc8985]") {
    Window w;
    for (std::uint32_t i = 0; i < 20; ++i) w.queue.mark_lost(w.c, w.find(i));
    CHECK(w.in_flight().front() == 20);
    CHECK(w.in_flight().size() == kFlights - 20);
    // The second goes again in the instant in which the last went; that is still the later one.
    w.queue.relaunch(w.c, w.find(1), (kFlights - 1) / 10);
    const std::vector<std::uint32_t> sent = w.in_flight();
    CHECK(sent[sent.size() - 11] == 1);
    CHECK(sent.back() == kFlights - 1);
    w.queue.relaunch(w.c, w.find(1), kFlights);
    CHECK(w.in_flight().back() == 1);
    REQUIRE(w.queue.split(w.c, w.find(30), 40));
    w.queue.mark_found(w.c);
    CHECK(w.c.lost_bytes == 0);
    const std::vector<std::uint32_t> found = w.in_flight();
    CHECK(found.size() == kFlights + 1);
    CHECK(found[0] == 0);
    CHECK(found[1] == 2);
    CHECK(found[18] == 19);
    CHECK(found[29] == 30);
    CHECK(found[30] == 30);  // its rest, right behind it
    CHECK(found[31] == 31);
}

TEST_CASE("What the peer takes back is lost, and can go again in segments", "[tcp][rfc2018]") {
    Window w;
    for (std::uint32_t i = 0; i < 30; ++i) w.queue.mark_sacked(w.c, w.find(i));
    CHECK(w.queue.flights().used() == kFlights - 29);
    w.queue.forget_sack(w.c);
    CHECK(w.c.sacked_bytes == 0);
    CHECK(w.c.lost_bytes == 30 * kLength);
    REQUIRE(w.queue.split(w.c, w.c.flight_head, kLength));
    w.queue.relaunch(w.c, w.c.flight_head, kFlights);
    CHECK(w.c.lost_bytes == 29 * kLength);
    CHECK(w.in_flight().back() == 0);
}
