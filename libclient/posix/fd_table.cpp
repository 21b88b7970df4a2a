// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/fd_table.hpp"

#include <new>

#include <sys/mman.h>

namespace chiru::posix {

constinit FdTable fd_table;

std::atomic<Object*>* FdTable::entry(int fd, bool make) {
    if (fd < 0 || fd >= kEnd) return nullptr;
    const auto number = static_cast<std::size_t>(fd);
    std::atomic<Page*>& slot = pages_[number / kPerPage];
    Page* page = slot.load(std::memory_order_relaxed);  // the lock's holder is the only writer
    if (page == nullptr && make) {
        // Not from the heap: the program's allocator may call us.
        void* memory = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return nullptr;
        page = new (memory) Page;
        slot.store(page, std::memory_order_release);  // PAGE
    }
    return page == nullptr ? nullptr : &(*page)[number % kPerPage];
}

bool FdTable::install(int fd, Object& object) {
    std::atomic<Object*>* slot = entry(fd, true);
    if (slot == nullptr) return false;
    ++object.descriptors_;
    remove(fd);
    slot->store(&object, std::memory_order_release);  // ENTRY
    return true;
}

void FdTable::remove(int fd) {
    std::atomic<Object*>* slot = entry(fd, false);
    Object* object = slot == nullptr ? nullptr : slot->load(std::memory_order_relaxed);
    if (object == nullptr) return;
    slot->store(nullptr, std::memory_order_release);  // ENTRY
    if (--object->descriptors_ != 0) return;
    object->last_descriptor_closed();
    if (object->pins_ == 0) delete object;
}

}  // namespace chiru::posix
