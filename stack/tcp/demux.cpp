// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/demux.hpp"

#include "base/check.hpp"

namespace chiru::tcp {

// Each loop ends at an empty entry: there is always one, for the table has more entries than there
// are connections.

Index Demux::find(const Tuple& tuple, std::uint64_t hash) const {
    const auto tag = static_cast<std::uint32_t>(hash);
    for (std::uint32_t i = slot(hash);; i = (i + 1) & mask_) {
        const Entry& entry = table_[i];
        if (entry.hash == 0) return kNil;
        if (entry.hash == tag && is_of(connections_[entry.connection], tuple))
            return entry.connection;
    }
}

void Demux::insert(Index connection, std::uint64_t hash) {
    std::uint32_t i = slot(hash);
    while (table_[i].hash != 0) i = (i + 1) & mask_;
    table_[i] = {static_cast<std::uint32_t>(hash), connection};
}

void Demux::remove(Index connection, std::uint64_t hash) {
    std::uint32_t hole = slot(hash);
    while (table_[hole].hash != 0 && table_[hole].connection != connection)
        hole = (hole + 1) & mask_;
    DCHECK(table_[hole].hash != 0);
    // Close the gap: an entry moves into the hole if its own place is not behind the hole.
    for (std::uint32_t i = (hole + 1) & mask_; table_[i].hash != 0; i = (i + 1) & mask_) {
        const std::uint32_t home = slot(table_[i].hash);
        if (((i - home) & mask_) < ((i - hole) & mask_)) continue;
        table_[hole] = table_[i];
        hole = i;
    }
    table_[hole] = {};
}

}  // namespace chiru::tcp
