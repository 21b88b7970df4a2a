// SPDX-License-Identifier: Apache-2.0
//
// Stands in TCP's place in the tests of ip/, and remembers what it was handed.
#include "test/stack/ip/host.hpp"

namespace chiru {

namespace test {
Recorded& recorded() {
    static Recorded instance;
    return instance;
}
}  // namespace test

namespace tcp {

struct Engine::State {};

Engine::Engine(const StackConfig&, std::span<std::byte>, shm::ShardTables&, ArenaView, Lower&,
               BufferPool&, shm::CounterBlock&, Instant) {}
Engine::~Engine() = default;

void Engine::prefetch(std::span<Incoming>) const {}

Fate Engine::receive(const Incoming& incoming, Instant) {
    test::recorded().segments.push_back({incoming.source,
                                         incoming.destination,
                                         {incoming.l4.begin(), incoming.l4.end()},
                                         incoming.checksum_good});
    return {shm::Counter::InAccepted, false};
}

bool Engine::icmp_error(const IcmpError& error, Instant) {
    test::recorded().errors.push_back(error);
    return test::recorded().believe_errors;
}

void Engine::path_ready(std::uint32_t neighbor, bool reachable, Instant) {
    test::recorded().ready.emplace_back(neighbor, reachable);
}

}  // namespace tcp
}  // namespace chiru
