// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/policy.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace chiru::posix;

namespace {

shm::InterfaceInfo storage() {
    shm::InterfaceInfo interface;
    interface.in_use = 1;
    for (const char* text : {"10.7.0.2/24", "fd07::2/64"})
        interface.addresses[interface.address_count++] = {
            .prefix = *IpPrefix::parse(text), .state = shm::AddressState::Preferred, .origin = {}};
    return interface;
}

IpAddress address(const char* text) { return *IpAddress::parse(text); }

}  // namespace

TEST_CASE("without a daemon everything is the kernel's", "[posix]") {
    const Policy policy;
    for (const char* text : {"0.0.0.0", "::", "10.7.0.2", "127.0.0.1"}) {
        CHECK(policy.for_bind(address(text)) == Stack::Kernel);
        CHECK(policy.for_connect(address(text)) == Stack::Kernel);
    }
}

TEST_CASE("own addresses are chiru's, any address is both stacks'", "[posix]") {
    Policy policy;
    policy.refresh({storage()});
    CHECK(policy.for_bind(address("10.7.0.2")) == Stack::Chiru);
    CHECK(policy.for_bind(address("fd07::2")) == Stack::Chiru);
    CHECK(policy.for_bind(address("10.7.0.1")) == Stack::Kernel);
    CHECK(policy.for_bind(address("0.0.0.0")) == Stack::Both);
    CHECK(policy.for_bind(address("::")) == Stack::Both);
}

TEST_CASE("what chiru's interfaces route is reached through chiru", "[posix]") {
    Policy policy;
    shm::InterfaceInfo interface = storage();
    policy.refresh({interface});
    CHECK(policy.for_connect(address("10.7.0.2")) == Stack::Chiru);
    CHECK(policy.for_connect(address("10.7.0.200")) == Stack::Chiru);
    CHECK(policy.for_connect(address("fd07::99")) == Stack::Chiru);
    CHECK(policy.for_connect(address("10.8.0.1")) == Stack::Kernel);
    CHECK(policy.for_connect(address("fd08::1")) == Stack::Kernel);
    CHECK(policy.for_connect(address("fe80::1")) == Stack::Kernel);
    interface.routes[interface.route_count++].to = *IpPrefix::parse("0.0.0.0/0");
    policy.refresh({interface});
    CHECK(policy.for_connect(address("10.8.0.1")) == Stack::Chiru);
    CHECK(policy.for_connect(address("fd08::1")) == Stack::Kernel);
    CHECK(policy.for_connect(address("255.255.255.255")) == Stack::Kernel);
}

TEST_CASE("loopback is the kernel's until a switch gives it away", "[posix]") {
    for (const bool loopback : {false, true}) {
        Policy policy(loopback);
        policy.refresh({storage()});
        const Stack expected = loopback ? Stack::Chiru : Stack::Kernel;
        for (const char* text : {"127.0.0.1", "127.1.2.3", "::1"}) {
            CHECK(policy.for_bind(address(text)) == expected);
            CHECK(policy.for_connect(address(text)) == expected);
        }
        CHECK(policy.for_connect(address("0.0.0.0")) == expected);
    }
}

TEST_CASE("an address that somebody else has is not ours", "[posix]") {
    Policy policy;
    shm::InterfaceInfo interface = storage();
    interface.addresses[0].state = shm::AddressState::Duplicate;
    policy.refresh({interface});
    CHECK(policy.for_bind(address("10.7.0.2")) == Stack::Kernel);
    policy.forget();
    CHECK(policy.for_bind(address("fd07::2")) == Stack::Kernel);
}
