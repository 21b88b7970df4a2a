// SPDX-License-Identifier: Apache-2.0
#include "stack/ip/control_queue.hpp"

#include <algorithm>
#include <cstring>

namespace chiru::ip {

ControlQueue::ControlQueue(std::span<Job> table, Pieces& pieces)
    : table_(table), pieces_(pieces), free_count_(table.size()) {
    for (std::size_t i = table_.size(); i-- > 0;) {
        table_[i].next = free_;
        free_ = static_cast<std::uint32_t>(i);
    }
}

std::uint32_t ControlQueue::take(bool urgent) {
    if (free_ == kNoJob || (!urgent && free_count_ <= kUrgentReserve)) return kNoJob;
    const std::uint32_t index = free_;
    free_ = table_[index].next;
    --free_count_;
    table_[index] = Job{};
    return index;
}

void ControlQueue::push(std::uint32_t job, bool urgent) {
    append(urgent ? urgent_ : normal_, job, job);
}

void ControlQueue::push_chain(std::uint32_t first, std::uint32_t last) {
    if (first != kNoJob) append(normal_, first, last);
}

void ControlQueue::append(List& list, std::uint32_t first, std::uint32_t last) {
    table_[last].next = kNoJob;
    if (list.first == kNoJob) list.first = first;
    else table_[list.last].next = first;
    list.last = last;
}

void ControlQueue::finish(std::uint32_t job) {
    pieces_.release_chain(table_[job].first_piece);
    table_[job].first_piece = kNoPiece;
    table_[job].next = free_;
    free_ = job;
    ++free_count_;
}

std::uint32_t ControlQueue::pop() {
    List& list = urgent_.first != kNoJob ? urgent_ : normal_;
    const std::uint32_t job = list.first;
    list.first = table_[job].next;
    if (list.first == kNoJob) list.last = kNoJob;
    table_[job].next = kNoJob;
    return job;
}

void ControlQueue::put_back(std::uint32_t job) {
    table_[job].next = normal_.first;
    normal_.first = job;
    if (normal_.last == kNoJob) normal_.last = job;
}

void ControlQueue::copy(const Job& job, std::size_t from, std::span<std::byte> into) const {
    if (from < job.head_bytes) {
        const std::size_t bytes = std::min(into.size(), job.head_bytes - from);
        std::memcpy(into.data(), job.head.data() + from, bytes);
        into = into.subspan(bytes);
        from += bytes;
    }
    std::size_t skip = from - job.head_bytes;
    for (std::uint32_t i = job.first_piece; !into.empty() && i != kNoPiece; i = pieces_[i].next) {
        const std::span<const std::byte> bytes = pieces_.bytes(i);
        if (skip >= bytes.size()) {
            skip -= bytes.size();
            continue;
        }
        const std::size_t part = std::min(into.size(), bytes.size() - skip);
        std::memcpy(into.data(), bytes.data() + skip, part);
        into = into.subspan(part);
        skip = 0;
    }
}

}  // namespace chiru::ip
