// SPDX-License-Identifier: Apache-2.0
//
// Cookies of TCP Fast Open: those we make, and the table of those we were given. What becomes of
// them on the wire is in test/script/7413.
#include "stack/tcp/fast_open_cookie.hpp"
#include "stack/tcp/listener.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <vector>

using namespace chiru;
using namespace chiru::tcp;
using namespace std::chrono_literals;

namespace {

constexpr SipKey kSecret{1, 2};
constexpr Micros kPeriod{1ll << kFastOpenPeriodShift};

IpAddress host(unsigned n) { return IpAddress::v4(0x0a07'0000 + n); }

CookieVerdict check(const FastOpenCookie& cookie, Instant now, const IpAddress& remote = host(9)) {
    return check_fast_open_cookie(kSecret, host(1), remote, cookie.span(), now);
}

struct Cache {
    std::vector<CookieEntry> entries{kCookieEntries};
    CookieCache cache{entries.data(), SipKey{3, 4}};
    Instant now{1h};

    void learn(unsigned n, std::size_t bytes = 8) {
        const std::array<std::byte, 16> cookie{static_cast<std::byte>(n)};
        cache.learn(host(1), host(n), std::span(cookie).first(bytes), 1460, now);
        now += 1ms;
    }
};

}  // namespace

TEST_CASE("a Fast Open cookie is good for its two addresses and two periods", "[tcp][rfc7413]") {
    const Instant start{5 * kPeriod};
    const FastOpenCookie cookie = make_fast_open_cookie(kSecret, host(1), host(9), start);
    CHECK(cookie.length == kOurCookieBytes);
    CHECK(check(cookie, start) == CookieVerdict::Good);
    CHECK(check(cookie, start + kPeriod) == CookieVerdict::Old);
    CHECK(check(cookie, start + 2 * kPeriod) == CookieVerdict::Bad);
    CHECK(check(cookie, start, host(8)) == CookieVerdict::Bad);
    CHECK(check_fast_open_cookie(kSecret, host(2), host(9), cookie.span(), start) ==
          CookieVerdict::Bad);
    CHECK(check_fast_open_cookie({1, 3}, host(1), host(9), cookie.span(), start) ==
          CookieVerdict::Bad);
    CHECK(check_fast_open_cookie(kSecret, host(1), host(9), cookie.span().first(4), start) ==
          CookieVerdict::Bad);
    const IpAddress v6 = *IpAddress::parse("fd07::9");
    const FastOpenCookie other = make_fast_open_cookie(kSecret, v6, v6, start);
    CHECK(check_fast_open_cookie(kSecret, v6, v6, other.span(), start) == CookieVerdict::Good);
}

TEST_CASE("a cookie we were given stays until another comes", "[tcp][rfc7413]") {
    Cache c;
    CHECK(c.cache.find(host(1), host(9)) == nullptr);
    c.cache.learn(host(1), host(9), {}, 1000, c.now);  // nothing to keep
    CHECK(c.cache.find(host(1), host(9)) == nullptr);
    c.learn(9);
    REQUIRE(c.cache.find(host(1), host(9)) != nullptr);
    CHECK(c.cache.find(host(2), host(9)) == nullptr);
    c.cache.learn(host(1), host(9), {}, 1000, c.now);
    CHECK(c.cache.find(host(1), host(9))->cookie_bytes == 8);
    CHECK(c.cache.find(host(1), host(9))->peer_mss == 1000);
    c.learn(9, 16);
    CHECK(c.cache.find(host(1), host(9))->cookie_bytes == 16);
}

TEST_CASE("a destination that failed is shunned for twice as long each time", "[tcp][rfc7413]") {
    Cache c;
    const auto shunned = [&] {
        return CookieCache::is_shunned(*c.cache.find(host(1), host(9)), c.now);
    };
    for (const auto seconds : {10s, 20s, 40s}) {
        c.cache.shun(host(1), host(9), c.now);
        c.now += seconds - 1s;
        CHECK(shunned());
        c.now += 1s;
        CHECK_FALSE(shunned());
    }
    c.cache.praise(host(1), host(9), c.now);
    c.cache.shun(host(1), host(9), c.now);
    c.now += 10s;
    CHECK_FALSE(shunned());
    for (int i = 0; i < 300; ++i) c.cache.shun(host(1), host(9), c.now);
    c.now += 2h;
    CHECK_FALSE(shunned());
}

TEST_CASE("the table of cookies is bounded, and the oldest makes room", "[tcp][rfc7413]") {
    Cache c;
    for (unsigned n = 0; n < 3 * kCookieEntries; ++n) c.learn(n);
    CHECK(c.cache.find(host(1), host(3 * kCookieEntries - 1)) != nullptr);
    std::size_t old = 0;
    for (unsigned n = 0; n < kCookieEntries; ++n)
        old += c.cache.find(host(1), host(n)) != nullptr ? 1u : 0u;
    CHECK(old < kCookieEntries / 8);
}

TEST_CASE("a refused early connection counts for one to two minutes", "[tcp][rfc7413]") {
    EarlyOpens early{.most = 1};
    Instant now{1h};
    CHECK_FALSE(early.full(now));
    early.refuse(now);
    CHECK(early.full(now + 59s));
    CHECK(early.full(now + 61s));
    CHECK_FALSE(early.full(now + 121s));
    EarlyOpens long_ago{.most = 1};
    long_ago.refuse(now);
    CHECK_FALSE(long_ago.full(now + 1h));
}
