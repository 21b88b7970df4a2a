// SPDX-License-Identifier: Apache-2.0
//
// A doubly linked list through members of its elements: membership without allocation, and
// leaving in O(1). An element is in at most one list by each of its links.
#pragma once

#include <cstddef>

namespace chiru::posix {

template <class T>
struct Link {
    T* previous = nullptr;
    T* next = nullptr;
    bool linked = false;
};

template <class T, Link<T> T::*kLink>
class List {
public:
    T* first() const { return first_; }
    static T* after(const T& element) { return (element.*kLink).next; }
    bool empty() const { return first_ == nullptr; }
    std::size_t size() const { return size_; }
    static bool contains(const T& element) { return (element.*kLink).linked; }

    void push_back(T& element) {
        Link<T>& link = element.*kLink;
        link = {.previous = last_, .next = nullptr, .linked = true};
        (last_ == nullptr ? first_ : (last_->*kLink).next) = &element;
        last_ = &element;
        ++size_;
    }

    void remove(T& element) {
        Link<T>& link = element.*kLink;
        if (!link.linked) return;
        (link.previous == nullptr ? first_ : (link.previous->*kLink).next) = link.next;
        (link.next == nullptr ? last_ : (link.next->*kLink).previous) = link.previous;
        link = {};
        --size_;
    }

private:
    T* first_ = nullptr;
    T* last_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace chiru::posix
