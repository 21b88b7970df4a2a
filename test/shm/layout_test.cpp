// SPDX-License-Identifier: Apache-2.0
//
// The offsets that two processes share, as text, compared with layout.txt. A change to a shared
// structure shows as a difference in review; whoever makes one raises the version and writes the
// file anew: CHIRU_UPDATE_GOLDEN=1 meson test -C build shm
#include "shm/channel.hpp"
#include "shm/control.hpp"
#include "shm/directory.hpp"
#include "shm/tables.hpp"

#include <catch2/catch.hpp>

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

using namespace chiru;
using namespace chiru::shm;

namespace {

#define SIZE(type) out << #type << " " << sizeof(type) << "\n"
#define FIELD(type, member) \
    out << "  " << #type << "." << #member << " " << offsetof(type, member) << "\n"

void describe_rings(std::ostream& out) {
    out << "versions: channel " << kChannelVersion << ", control " << kControlVersion
        << ", directory " << kDirectoryVersion << ", tables " << kTablesVersion << "\n";
    SIZE(Slice);
    FIELD(Slice, offset);
    FIELD(Slice, length);
    FIELD(Slice, arena);
    SIZE(Submission);
    FIELD(Submission, op);
    FIELD(Submission, count);
    FIELD(Submission, flags);
    FIELD(Submission, connection);
    FIELD(Submission, user);
    FIELD(Submission, slices);
    SIZE(ConnectBody);
    SIZE(ReleaseBody);
    FIELD(ReleaseBody, arena);
    SIZE(OptionBody);
    FIELD(OptionBody, value);
    SIZE(CreditBody);
    FIELD(Submission, hints);
    SIZE(DatagramBody);
    FIELD(DatagramBody, source);
    FIELD(DatagramBody, port);
    FIELD(DatagramBody, interface);
    FIELD(DatagramBody, length);
    SIZE(DatagramOptionBody);
    SIZE(Completion);
    FIELD(Completion, op);
    FIELD(Completion, count);
    FIELD(Completion, error);
    FIELD(Completion, sent_bytes);
    FIELD(Completion, connection);
    FIELD(Completion, user);
    FIELD(Completion, slices);
    SIZE(EndpointsBody);
    SIZE(ArrivedBody);
    FIELD(ArrivedBody, remote);
    FIELD(ArrivedBody, port);
    FIELD(ArrivedBody, ttl);
    FIELD(ArrivedBody, more);
    SIZE(DoorbellWord);
    FIELD(DoorbellWord, epoch);
    FIELD(DoorbellWord, cpu);
    SIZE(SubmissionRing);
    FIELD(SubmissionRing, head);
    FIELD(SubmissionRing, tail);
    FIELD(SubmissionRing, slots);
    SIZE(CompletionRing);
    SIZE(ShardLane);
    FIELD(ShardLane, submissions);
    FIELD(ShardLane, completions);
    SIZE(Channel);
    FIELD(Channel, header);
    FIELD(Channel, client_doorbell);
}

void describe_control(std::ostream& out) {
    SIZE(Message);
    FIELD(Message, version);
    FIELD(Message, type);
    FIELD(Message, sequence);
    FIELD(Message, error);
    FIELD(Message, raw);
    SIZE(AttachRequest);
    SIZE(AttachReply);
    SIZE(ObserveReply);
    SIZE(ChannelReply);
    SIZE(BindRequest);
    SIZE(BindReply);
    SIZE(ListenRequest);
    FIELD(ListenRequest, fast_open);
    SIZE(AdoptRequest);
}

void describe_directory(std::ostream& out) {
    SIZE(PortInfo);
    SIZE(InterfaceInfo);
    SIZE(SessionInfo);
    SIZE(ChannelInfo);
    SIZE(SessionCounters);
    SIZE(CounterName);
    SIZE(Directory);
    FIELD(Directory, magic);
    FIELD(Directory, version);
    FIELD(Directory, bytes);
    FIELD(Directory, daemon_pid);
    FIELD(Directory, shard_count);
    FIELD(Directory, started_us);
    FIELD(Directory, counter_names);
    FIELD(Directory, shards);
    FIELD(Directory, ports);
    FIELD(Directory, session_counters);
}

void describe_tables(std::ostream& out) {
    SIZE(ShardTables);
    FIELD(ShardTables, connections);
    FIELD(ShardTables, listeners);
    FIELD(ShardTables, neighbors);
    FIELD(ShardTables, connections_high);
    FIELD(ShardTables, now_us);
    SIZE(ConnectionInfo);
    FIELD(ConnectionInfo, local_port);
    FIELD(ConnectionInfo, state);
    FIELD(ConnectionInfo, session);
    FIELD(ConnectionInfo, user);
    FIELD(ConnectionInfo, snd_una);
    FIELD(ConnectionInfo, rcv_nxt);
    FIELD(ConnectionInfo, srtt_us);
    FIELD(ConnectionInfo, rx_segments);
    FIELD(ConnectionInfo, opened_us);
    FIELD(ConnectionInfo, congestion);
    FIELD(ConnectionInfo, fast_open);
    SIZE(ListenerInfo);
    FIELD(ListenerInfo, backlog);
    FIELD(ListenerInfo, accepted);
    SIZE(NeighborInfo);
    FIELD(NeighborInfo, state);
    FIELD(NeighborInfo, updated_us);
}

}  // namespace

TEST_CASE("the layout of shared memory is the one of layout.txt", "[shm]") {
    std::ostringstream now;
    describe_rings(now);
    describe_control(now);
    describe_directory(now);
    describe_tables(now);

    const std::string path = std::string(CHIRU_SOURCE_ROOT) + "/test/shm/layout.txt";
    if (std::getenv("CHIRU_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << now.str();
    std::ifstream file(path);
    std::ostringstream golden;
    golden << file.rdbuf();
    CHECK(now.str() == golden.str());
}
