// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/device_string.hpp"

#include "daemon/nic/eal.hpp"
#include "shm/unique_fd.hpp"

#include <fcntl.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace chiru::daemon::nic {
namespace {

namespace fs = std::filesystem;

/// What af_packet keeps of each frame for itself, and Ethernet's own bytes with one VLAN tag.
constexpr std::uint32_t kPacketRingOverhead = 64 + 22;
/// The driver has the kernel put IPv4 fragments together before they reach its ring
/// (PACKET_FANOUT_FLAG_DEFRAG), so frames are longer than the MTU.
constexpr std::uint32_t kPacketFrame = 16'384;

/// Ethernet's bytes with two VLAN tags; and what a memif buffer holds if nobody says otherwise.
constexpr std::uint32_t kMemifOverhead = 22;
constexpr std::uint32_t kMemifBuffer = 2048;

bool starts_with(const std::string& text, const char* prefix) { return text.starts_with(prefix); }

std::optional<std::string> tap_trouble() {
    const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return std::nullopt;
    }
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        return "/dev/net/tun is missing; load the kernel's module with: modprobe tun";
    return std::string("/dev/net/tun cannot be opened (") + std::strerror(errno) +
           "); run as root or with CAP_NET_ADMIN";
}

std::optional<std::string> interface_trouble(const std::string& device) {
    const std::optional<std::string> name = device_argument(device, "iface");
    if (!name) return "the device string names no interface; add iface=<name>";
    if (if_nametoindex(name->c_str()) != 0) return std::nullopt;
    return "there is no network interface \"" + *name + "\"; see: ip link";
}

std::optional<std::string> pci_trouble(const std::string& device) {
    std::string address = device_name(device);
    if (address.find(':') == address.rfind(':')) address = "0000:" + address;
    const fs::path path = "/sys/bus/pci/devices/" + address;
    std::error_code error;
    if (!fs::exists(path, error)) return "no PCI device has this address; see: lspci -D";
    const fs::path link = fs::read_symlink(path / "driver", error);
    const std::string driver = error ? "no driver" : link.filename().string();
    // Mellanox/NVIDIA and Microsoft devices keep their kernel driver beside DPDK's.
    for (const char* fit : {"vfio-pci", "igb_uio", "uio_pci_generic", "mlx5_core", "mlx4_core"})
        if (driver == fit) return std::nullopt;
    return "the device is bound to " + driver +
           "; give it to DPDK with: modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci " +
           address;
}

}  // namespace

std::string device_name(const std::string& device) { return device.substr(0, device.find(',')); }

std::optional<std::string> device_argument(const std::string& device, const std::string& key) {
    const std::string wanted = "," + key + "=";
    const std::size_t found = device.find(wanted);
    if (found == std::string::npos) return std::nullopt;
    const std::size_t begin = found + wanted.size();
    return device.substr(begin, device.find(',', begin) - begin);
}

std::size_t kernel_receive_queues(const std::string& device) {
    const std::optional<std::string> name = device_argument(device, "iface");
    std::size_t count = 0;
    std::error_code error;
    if (!name) return 0;
    const fs::path queues = "/sys/class/net/" + *name + "/queues";
    for (const auto& entry : fs::directory_iterator(queues, error))
        if (starts_with(entry.path().filename().string(), "rx-")) ++count;
    return count;
}

std::string complete_device(const std::string& device, std::uint16_t queues, std::uint16_t mtu) {
    std::string complete = device;
    if (starts_with(device, "net_memif") && !device_argument(device, "bsize")) {
        // A frame must fit: of those in several buffers DPDK 22.11's driver loses count, and reads
        // old ones again.
        const std::uint32_t frame = mtu + kMemifOverhead;
        if (frame > kMemifBuffer) complete += ",bsize=" + std::to_string((frame + 255) / 256 * 256);
        return complete;
    }
    if (!starts_with(device, "net_af_packet")) return complete;
    if (queues > 1 && !device_argument(device, "qpairs"))
        complete += ",qpairs=" + std::to_string(queues);
    if (!device_argument(device, "framesz")) {
        const std::uint32_t frame =
            std::max(kPacketFrame, std::bit_ceil(mtu + kPacketRingOverhead));
        complete += ",framesz=" + std::to_string(frame) + ",blocksz=" + std::to_string(4 * frame) +
                    ",framecnt=512";
    }
    return complete;
}

std::optional<std::string> missing_on_this_machine(const std::string& device) {
    if (is_pci_device(device)) return pci_trouble(device);
    if (starts_with(device, "net_tap")) return tap_trouble();
    if (starts_with(device, "net_af_packet") || starts_with(device, "net_af_xdp"))
        return interface_trouble(device);
    return std::nullopt;
}

std::optional<std::string> argument_trouble(const std::string& device, std::uint16_t mtu) {
    const std::optional<std::string> buffer = device_argument(device, "bsize");
    if (!starts_with(device, "net_memif") || !buffer) return std::nullopt;
    if (std::strtoul(buffer->c_str(), nullptr, 10) >= mtu + kMemifOverhead) return std::nullopt;
    return "its buffers (bsize=" + *buffer + ") do not hold a frame of MTU " +
           std::to_string(mtu) + "; leave bsize out, or make it at least " +
           std::to_string(mtu + kMemifOverhead);
}

void remove_stale_socket(const std::string& device) {
    if (!device.starts_with("net_memif")) return;
    const std::string role = device_argument(device, "role").value_or("client");
    const std::optional<std::string> path = device_argument(device, "socket");
    if ((role != "server" && role != "master") || !path) return;
    sockaddr_un address{};
    if (path->empty() || path->size() >= sizeof address.sun_path) return;
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path->c_str(), path->size() + 1);
    const shm::UniqueFd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const bool answered =
        connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    if (!answered && errno == ECONNREFUSED) unlink(path->c_str());
}

}  // namespace chiru::daemon::nic
