// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/device_string.hpp"
#include "daemon/nic/eal.hpp"

#include <catch2/catch.hpp>

using namespace chiru::daemon::nic;

TEST_CASE("A device string is a name and arguments", "[nic]") {
    const std::string device = "net_tap0,iface=chiru0,mac=fixed";
    CHECK(device_name(device) == "net_tap0");
    CHECK(device_argument(device, "iface") == "chiru0");
    CHECK(device_argument(device, "mac") == "fixed");
    CHECK_FALSE(device_argument(device, "face"));
    CHECK_FALSE(device_argument("net_tap0", "iface"));
}

TEST_CASE("PCI addresses are told from virtual devices", "[nic]") {
    CHECK(is_pci_device("0000:03:00.0"));
    CHECK(is_pci_device("03:00.1"));
    CHECK(is_pci_device("03:00.1,mprq_en=1"));
    CHECK_FALSE(is_pci_device("net_tap0,iface=03:00.1"));
    CHECK_FALSE(is_pci_device("03:00.8"));
}

TEST_CASE("What a packet ring needs is filled in unless the operator said it", "[nic]") {
    CHECK(complete_device("net_tap0,iface=x", 2, 9000) == "net_tap0,iface=x");
    const std::string two = complete_device("net_af_packet0,iface=lo", 2, 1500);
    CHECK(device_argument(two, "qpairs") == "2");
    CHECK(device_argument(two, "framesz") == "16384");
    const std::string own = "net_af_packet0,iface=lo,qpairs=4,framesz=2048";
    CHECK(complete_device(own, 2, 1500) == own);
}

TEST_CASE("A memif's buffers hold whole frames", "[nic]") {
    const std::string memif = "net_memif0,role=client";
    CHECK(complete_device(memif, 1, 1500) == memif);
    CHECK(complete_device(memif, 1, 9000) == memif + ",bsize=9216");
    CHECK(complete_device(memif + ",bsize=4096", 1, 9000) == memif + ",bsize=4096");
    CHECK_FALSE(argument_trouble(memif, 9000));
    CHECK_FALSE(argument_trouble(memif + ",bsize=2048", 1500));
    const auto small = argument_trouble(memif + ",bsize=2048", 9000);
    REQUIRE(small);
    CHECK(small->find("bsize=2048") != std::string::npos);
}

TEST_CASE("A device that cannot work on this machine is refused with what is missing", "[nic]") {
    const auto nowhere = missing_on_this_machine("net_af_packet0,iface=chiru-none");
    REQUIRE(nowhere);
    CHECK(nowhere->find("chiru-none") != std::string::npos);
    REQUIRE(missing_on_this_machine("net_af_xdp0"));
    REQUIRE(missing_on_this_machine("ffff:ff:1f.7"));
    CHECK_FALSE(missing_on_this_machine("net_memif0,role=server"));
}
