// SPDX-License-Identifier: Apache-2.0
//
// A data plane without devices, for tests of the control thread: it is linked in place of the real
// one. Every order is carried out at once, unless the test holds the reports back.
#include "test/daemon/control/fake_plane.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

namespace chiru::daemon {

using test::fake;

struct DataPlane::State {
    shm::UniqueFd reports{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    shm::Region rx_arena;
    std::vector<shm::Region> tables;
};

DataPlane::DataPlane() : state_(std::make_unique<State>()) {
    fake().reset();
    fake().wake = state_->reports.get();
    state_->rx_arena =
        *shm::Region::create("fake-rx", test::kRxSlots * test::kRxSlotBytes,
                             shm::PeerAccess::ReadOnly);
    for (std::uint32_t shard = 0; shard < test::kShards; ++shard)
        state_->tables.push_back(*shm::Region::create("fake", 4096, shm::PeerAccess::ReadOnly));
}
DataPlane::~DataPlane() = default;
void DataPlane::stop() {}

std::uint32_t DataPlane::shard_count() const { return test::kShards; }
const shm::Region& DataPlane::rx_arena() const { return state_->rx_arena; }
std::uint32_t DataPlane::rx_slot_bytes() const { return test::kRxSlotBytes; }
const shm::Region& DataPlane::tables(std::uint32_t shard) const { return state_->tables[shard]; }
int DataPlane::report_fd() const { return state_->reports.get(); }
void DataPlane::watch_ports() {}
void DataPlane::publish_ports() {}
Result<void, int> DataPlane::map_for_devices(std::span<std::byte>) { return {}; }
void DataPlane::unmap_for_devices(std::span<std::byte>) {}

void DataPlane::post(std::uint32_t shard, const Command& command) {
    const std::lock_guard lock(fake().mutex);
    fake().commands.push_back({shard, command});
    Report report{.shard = shard, .tag = command.tag, .what = Done{}};
    if (const auto* detach = std::get_if<DetachSession>(&command.what))
        report.what = SessionGone{.session = detach->session};
    if (std::get_if<QueryConnection>(&command.what) != nullptr) {
        ConnectionSnapshot snapshot;
        snapshot.found = true;
        snapshot.info.local_port = 80;
        report.what = snapshot;
    }
    fake().report_locked(report);
}

void DataPlane::post_to_all(const Command& command) {
    for (std::uint32_t shard = 0; shard < test::kShards; ++shard) post(shard, command);
}

std::size_t DataPlane::take_reports(std::span<Report> reports) {
    const std::lock_guard lock(fake().mutex);
    eventfd_t count = 0;
    eventfd_read(state_->reports.get(), &count);
    if (fake().hold_back) return 0;
    const std::size_t taken = std::min(reports.size(), fake().reports.size());
    std::copy_n(fake().reports.begin(), taken, reports.begin());
    fake().reports.erase(fake().reports.begin(),
                         fake().reports.begin() + static_cast<std::ptrdiff_t>(taken));
    return taken;
}

}  // namespace chiru::daemon

namespace chiru::test {

FakePlane& fake() {
    static FakePlane plane;
    return plane;
}

void FakePlane::reset() {
    const std::lock_guard lock(mutex);
    commands.clear();
    reports.clear();
    hold_back = false;
}

void FakePlane::forget_commands() {
    const std::lock_guard lock(mutex);
    commands.clear();
}

void FakePlane::report_locked(const daemon::Report& report) {
    reports.push_back(report);
    eventfd_write(wake, 1);
}

void FakePlane::report(const daemon::Report& what) {
    const std::lock_guard lock(mutex);
    report_locked(what);
}

void FakePlane::release() {
    const std::lock_guard lock(mutex);
    hold_back = false;
    eventfd_write(wake, 1);
}

}  // namespace chiru::test
