// SPDX-License-Identifier: Apache-2.0
//
// From a file descriptor's number to what this library keeps behind it. Descriptors that are not
// in the table, which is nearly all of them in most programs, belong to the kernel alone.
//
//   number  ->  pages_[number / 1024]  ->  entry[number % 1024]  ->  Object
//
// find() takes no lock: it answers "is this one ours?" for every read() and write() of the
// program. Whoever then wants to use the object takes the process's lock and looks again;
// objects die only under that lock. Pages are mapped when first needed and stay.
//
// Numbers are always the kernel's: each names a real descriptor, so they never collide.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace chiru::posix {

/// What descriptors name; dup() makes several name one. Counts change under the lock.
class Object {
public:
    enum class Kind : std::uint8_t {
        Socket,
        Epoll,
        Internal,  ///< a descriptor of this library's own, which the program must not close
    };

    explicit Object(Kind kind) : kind_(kind) {}
    virtual ~Object() = default;
    Object(const Object&) = delete;
    Object& operator=(const Object&) = delete;

    Kind kind() const { return kind_; }
    /// The last descriptor was closed. The object lives on while a call sleeps in it.
    virtual void last_descriptor_closed() {}

    std::uint32_t descriptors() const { return descriptors_; }

private:
    friend class FdTable;
    friend class Pin;

    const Kind kind_;
    std::uint32_t descriptors_ = 0;
    std::uint32_t pins_ = 0;
};

/// Keeps an object alive over a sleep, in which the lock is given away. Made and ended under it.
class Pin {
public:
    explicit Pin(Object& object) : object_(&object) { ++object.pins_; }
    ~Pin() {
        if (--object_->pins_ == 0 && object_->descriptors_ == 0) delete object_;
    }
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;

private:
    Object* object_;
};

class FdTable {
public:
    static constexpr std::size_t kPerPage = 1024;
    static constexpr std::size_t kPages = 1024;
    static constexpr int kEnd = static_cast<int>(kPerPage * kPages);  ///< numbers are below

    /// The object behind `fd`, or nullptr. Without the lock: only whether there is one, and its
    /// kind is not to be relied on.
    Object* find(int fd) const {
        if (fd < 0 || fd >= kEnd) return nullptr;
        const auto number = static_cast<std::size_t>(fd);
        const Page* page = pages_[number / kPerPage].load(std::memory_order_acquire);  // PAGE
        if (page == nullptr) return nullptr;
        return (*page)[number % kPerPage].load(std::memory_order_acquire);  // ENTRY
    }

    /// Lets `fd` name `object`, and no longer what it named. False: beyond the table, or no
    /// memory; then nothing changed. (Lock.)
    bool install(int fd, Object& object);

    /// `fd` names nothing any more; the object goes if it was its last name. (Lock.)
    void remove(int fd);

    /// Calls `visit(fd, object)` for every entry in [first, last]. (Lock.)
    template <class Visit>
    void for_each(int first, int last, Visit visit) const {
        for (int fd = first < 0 ? 0 : first; fd <= last && fd < kEnd; ++fd) {
            const auto number = static_cast<std::size_t>(fd);
            if (pages_[number / kPerPage].load(std::memory_order_relaxed) == nullptr) {
                fd = static_cast<int>((number / kPerPage + 1) * kPerPage) - 1;
                continue;
            }
            if (Object* object = find(fd)) visit(fd, *object);
        }
    }

private:
    using Page = std::array<std::atomic<Object*>, kPerPage>;
    std::atomic<Object*>* entry(int fd, bool make);

    std::array<std::atomic<Page*>, kPages> pages_{};
};

/// The process's one. Usable before any constructor ran.
extern constinit FdTable fd_table;

}  // namespace chiru::posix
