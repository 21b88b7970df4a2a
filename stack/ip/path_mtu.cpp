// SPDX-License-Identifier: Apache-2.0
//
// What is known of paths' MTUs comes from routers, from the transports, and from the other shards;
// what changes is obeyed by every path from the next turn on.
#include "stack/ip/path_mtu.hpp"

#include "stack/ip/network.hpp"

#include <algorithm>

namespace chiru::ip {

using Origin = shm::PathMtuOrigin;

void Network::told_path_mtu(const tcp::IcmpError& error, Instant now) {
    const auto mtu = static_cast<std::uint16_t>(std::min<std::uint32_t>(error.mtu, 65'535));
    if (!path_mtus_.learn(error.remote.address, mtu, Origin::Told, true, now)) return;
    counters_.add(Counter::IpPathMtusTold);
    path_mtu_news({error.remote.address, mtu, true});
}

void Network::found_path_mtu(const IpAddress& remote, std::uint16_t mtu, Larger larger,
                             Instant now) {
    const bool news = larger == Larger::May
                          ? path_mtus_.raise(remote, mtu, now)
                          : path_mtus_.learn(remote, mtu, Origin::Found, false, now);
    if (!news) return;
    counters_.add(Counter::IpPathMtusFound);
    path_mtu_news({remote, mtu, false});
}

void Network::learn_path_mtu(const PathMtu& path, Instant now) {
    if (!path_mtus_.learn(path.remote, path.mtu, Origin::Shared, path.told, now)) return;
    counters_.add(Counter::IpPathMtusShared);
    ++path_mtus_seen_;
}

void Network::path_mtu_news(const PathMtu& path) {
    ++path_mtus_seen_;
    if (shard_count_ > 1 && path_news_count_ < kPathNews)
        path_news_[path_news_count_++] = path;
}

/// Once a turn: a walk over the neighbours, whose paths are looked up anew when they are used next.
void Network::renew_narrowed_paths() {
    if (path_mtus_obeyed_ == path_mtus_seen_) return;
    path_mtus_obeyed_ = path_mtus_seen_;
    neighbors_.renew_all_paths();
}

std::size_t Network::take_path_mtus(std::span<PathMtu> news) {
    const std::size_t count = std::min(news.size(), path_news_count_);
    std::copy_n(path_news_.begin(), count, news.begin());
    std::copy(path_news_.begin() + static_cast<std::ptrdiff_t>(count),
              path_news_.begin() + static_cast<std::ptrdiff_t>(path_news_count_),
              path_news_.begin());
    path_news_count_ -= count;
    return count;
}

}  // namespace chiru::ip
