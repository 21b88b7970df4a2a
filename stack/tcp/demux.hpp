// SPDX-License-Identifier: Apache-2.0
//
// Which connection a segment belongs to (RFC 9293 §3.10.7.1): open addressing over a keyed hash of
// the four-tuple, two thirds empty at the least, with linear probing and no tombstones. A peer
// that does not know the key cannot make tuples collide.
#pragma once

#include "base/address.hpp"
#include "base/siphash.hpp"
#include "stack/tcp/connection.hpp"
#include "stack/tcp/index.hpp"
#include "stack/tcp/wide.hpp"

#include <bit>
#include <cstdint>
#include <cstring>

namespace chiru::tcp {

/// The four-tuple, seen from our side.
struct Tuple {
    IpAddress local;
    IpAddress remote;
    std::uint16_t local_port = 0;
    std::uint16_t remote_port = 0;

    friend bool operator==(const Tuple&, const Tuple&) = default;
};
static_assert(sizeof(Tuple) == 36);

inline Tuple tuple_of(const Connection& c) {
    return {c.info.local_address, c.info.remote_address, c.info.local_port, c.info.remote_port};
}

inline bool is_of(const Connection& c, const Tuple& tuple) {
    return c.info.local_port == tuple.local_port && c.info.remote_port == tuple.remote_port &&
           c.info.remote_address == tuple.remote && c.info.local_address == tuple.local;
}

/// Folded 128-bit products, keyed: a few nanoseconds, where SipHash would cost as much as the rest
/// of the lookup. It decides where in the table a tuple lies, and nothing else. Never 0.
inline std::uint64_t tuple_hash(const SipKey& key, const Tuple& tuple) {
    std::uint64_t w[5] = {};
    std::memcpy(w, &tuple, sizeof tuple);
    const auto fold = [](std::uint64_t a, std::uint64_t b) {
        return product_low(a, b) ^ product_high(a, b);
    };
    const std::uint64_t first = fold(w[0] ^ key.k0, w[1] ^ key.k1);
    const std::uint64_t second = fold(w[2] ^ std::rotl(key.k1, 23), w[3] ^ std::rotl(key.k0, 41));
    return fold(first ^ std::rotl(second, 32) ^ key.k1, w[4] ^ first ^ key.k0) | 1;
}

class Demux {
public:
    struct Entry {
        std::uint32_t hash;   ///< low bits of the tuple's hash; 0: the entry is empty
        Index connection;
    };
    /// Entries for a table of `connections`.
    static std::uint32_t entries(std::uint32_t connections) {
        return std::bit_ceil(connections + connections / 2 + 16) * 2;
    }

    Demux(Entry* table, std::uint32_t size, const Connection* connections)
        : table_(table), mask_(size - 1), connections_(connections) {}

    void prefetch(std::uint64_t hash) const { __builtin_prefetch(&table_[slot(hash)]); }
    /// Where the lookup will probably lead.
    Index guess(std::uint64_t hash) const { return table_[slot(hash)].connection; }

    Index find(const Tuple& tuple, std::uint64_t hash) const;
    void insert(Index connection, std::uint64_t hash);
    void remove(Index connection, std::uint64_t hash);

private:
    std::uint32_t slot(std::uint64_t hash) const {
        return static_cast<std::uint32_t>(hash) >> 1 & mask_;  // bit 0 is always set
    }

    Entry* table_;  ///< zeroed by whoever made it
    std::uint32_t mask_;
    const Connection* connections_;
};

}  // namespace chiru::tcp
