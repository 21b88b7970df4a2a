// SPDX-License-Identifier: Apache-2.0
//
// Records in tables, named by index: how the tables are laid into one region, and how records are
// taken and given back. Nothing here touches a record that was never used, so memory of a big
// table costs nothing until it is needed.
#pragma once

#include "base/cache.hpp"

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>

namespace chiru::tcp {

using Index = std::uint32_t;
inline constexpr Index kNil = 0xffff'ffff;

/// Lays tables one behind the other. With an empty region it only counts.
class TableLayout {
public:
    explicit TableLayout(std::span<std::byte> region) : region_(region) {}

    /// Room for `count` records, cache-line aligned; nullptr while counting.
    template <class T>
    T* take(std::size_t count) {
        static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kCacheLine);
        const auto base = reinterpret_cast<std::uintptr_t>(region_.data());
        used_ += (kCacheLine - (base + used_) % kCacheLine) % kCacheLine;
        const std::size_t at = used_;
        used_ += count * sizeof(T);
        return used_ > region_.size() ? nullptr : reinterpret_cast<T*>(region_.data() + at);
    }
    /// Bytes taken, and enough for the region to begin anywhere.
    std::size_t bytes() const { return used_ + kCacheLine; }
    bool fits() const { return used_ <= region_.size(); }

private:
    std::span<std::byte> region_;
    std::size_t used_ = 0;
};

/// Free records of a table, chained through a member of theirs. Last given, first taken: it is
/// still in the cache.
template <class T, Index T::*kLink>
class Pool {
public:
    Pool() = default;
    Pool(T* records, std::uint32_t capacity) : records_(records), capacity_(capacity) {}

    T& operator[](Index i) { return records_[i]; }
    const T& operator[](Index i) const { return records_[i]; }

    /// A record with whatever content it had, or kNil.
    Index take() {
        if (free_ != kNil) {
            const Index i = free_;
            free_ = records_[i].*kLink;
            ++used_;
            return i;
        }
        if (high_ == capacity_) return kNil;
        ++used_;
        return high_++;
    }
    void give(Index i) {
        records_[i].*kLink = free_;
        free_ = i;
        --used_;
    }

    std::uint32_t capacity() const { return capacity_; }
    std::uint32_t used() const { return used_; }
    std::uint32_t available() const { return capacity_ - used_; }
    /// All records that were ever used lie below.
    std::uint32_t high() const { return high_; }
    T* data() { return records_; }
    const T* data() const { return records_; }

private:
    T* records_ = nullptr;
    std::uint32_t capacity_ = 0;
    std::uint32_t high_ = 0;
    std::uint32_t used_ = 0;
    Index free_ = kNil;
};

/// A double-linked list through two members of the records.
template <class T, Index T::*kNext, Index T::*kPrev>
struct List {
    Index head = kNil;
    Index tail = kNil;

    bool empty() const { return head == kNil; }
    void push_back(T* records, Index i) {
        records[i].*kNext = kNil;
        records[i].*kPrev = tail;
        if (tail == kNil) head = i;
        else records[tail].*kNext = i;
        tail = i;
    }
    void push_front(T* records, Index i) {
        records[i].*kPrev = kNil;
        records[i].*kNext = head;
        if (head == kNil) tail = i;
        else records[head].*kPrev = i;
        head = i;
    }
    void remove(T* records, Index i) {
        const Index next = records[i].*kNext, prev = records[i].*kPrev;
        if (prev == kNil) head = next;
        else records[prev].*kNext = next;
        if (next == kNil) tail = prev;
        else records[next].*kPrev = prev;
    }
    Index pop_front(T* records) {
        const Index i = head;
        if (i != kNil) remove(records, i);
        return i;
    }
};

/// The same for those whose owner has room for the head alone: the head's link back is the tail.
/// Forwards it ends with kNil.
template <class T, Index T::*kNext, Index T::*kPrev>
struct Ring {
    static Index tail(const T* records, Index head) {
        return head == kNil ? kNil : records[head].*kPrev;
    }
    static Index before(const T* records, Index head, Index i) {
        return i == head ? kNil : records[i].*kPrev;
    }
    /// Behind `place`; kNil: in front of all.
    static void insert(T* records, Index& head, Index place, Index i) {
        const Index last = tail(records, head);
        const Index next = place == kNil ? head : records[place].*kNext;
        records[i].*kNext = next;
        records[i].*kPrev = place == kNil ? last : place;
        if (next != kNil) records[next].*kPrev = i;
        if (place == kNil) head = i;
        else records[place].*kNext = i;
        if (next == kNil) records[head].*kPrev = i;
    }
    static void push_back(T* records, Index& head, Index i) {
        insert(records, head, tail(records, head), i);
    }
    static void remove(T* records, Index& head, Index i) {
        const Index next = records[i].*kNext, prev = records[i].*kPrev;
        if (i == head) head = next;
        else records[prev].*kNext = next;
        if (next != kNil) records[next].*kPrev = prev;
        else if (head != kNil) records[head].*kPrev = prev;
    }
    static Index pop_front(T* records, Index& head) {
        const Index i = head;
        if (i != kNil) remove(records, head, i);
        return i;
    }
};

}  // namespace chiru::tcp
