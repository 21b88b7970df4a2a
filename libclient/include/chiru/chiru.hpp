// SPDX-License-Identifier: Apache-2.0
//
// The C++ face of chiru.h: owners instead of handles, spans instead of pointers, std::expected
// instead of negative numbers. Header-only, over the C interface alone, so that programs and
// library may be built by different compilers. chiru.h has the whole contract; nothing is repeated
// here.
//
//     chiru::Session session = *chiru::Session::attach();
//     chiru::Channel channel = *session.open_channel();
//     chiru::Socket socket = *channel.socket();
//     socket.connect(address);
//     for (const chiru_event& event : *channel.poll(events, chiru::kForever)) ...
#pragma once

#include "chiru/chiru.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <system_error>
#include <utility>

namespace chiru {

template <class T>
using Expected = std::expected<T, std::error_code>;

inline constexpr std::chrono::microseconds kForever{CHIRU_FOREVER};

namespace face {  // the steps from C to C++

inline std::unexpected<std::error_code> error(long negative) {
    return std::unexpected(std::error_code(static_cast<int>(-negative), std::generic_category()));
}
inline Expected<void> done(int result) {
    if (result < 0) return error(result);
    return {};
}
inline Expected<std::size_t> count(ssize_t result) {
    if (result < 0) return error(result);
    return static_cast<std::size_t>(result);
}

}  // namespace face

/// A send buffer; gives itself back. Its memory stays until all that was sent from it is
/// acknowledged.
class Buffer {
public:
    Buffer(chiru_channel* channel, const chiru_buffer& buffer)
        : channel_(channel), buffer_(buffer) {}
    ~Buffer() {
        if (channel_ != nullptr) chiru_buffer_free(channel_, buffer_.token);
    }
    Buffer(Buffer&& other) noexcept
        : channel_(std::exchange(other.channel_, nullptr)), buffer_(other.buffer_) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(channel_, other.channel_);
        std::swap(buffer_, other.buffer_);
        return *this;
    }

    std::span<std::byte> bytes() const {
        return {static_cast<std::byte*>(buffer_.data), buffer_.bytes};
    }
    std::uint64_t token() const { return buffer_.token; }

private:
    chiru_channel* channel_;
    chiru_buffer buffer_;
};

/// A socket; closes itself. Must not outlive its channel.
class Socket {
public:
    Socket() = default;
    Socket(chiru_channel* channel, chiru_socket name) : channel_(channel), name_(name) {}
    ~Socket() { reset(); }
    Socket(Socket&& other) noexcept
        : channel_(other.channel_), name_(std::exchange(other.name_, chiru_socket{0})) {}
    Socket& operator=(Socket&& other) noexcept {
        if (this == &other) return *this;
        reset();
        channel_ = other.channel_;
        name_ = std::exchange(other.name_, chiru_socket{0});
        return *this;
    }

    explicit operator bool() const { return name_ != 0; }
    chiru_socket name() const { return name_; }
    void reset() {
        if (name_ != 0) chiru_close(channel_, std::exchange(name_, chiru_socket{0}));
    }
    void abort() {
        if (name_ != 0) chiru_abort(channel_, std::exchange(name_, chiru_socket{0}));
    }

    Expected<void> bind(const sockaddr* address, socklen_t bytes, std::uint32_t flags = 0) {
        return face::done(chiru_bind(channel_, name_, address, bytes, flags));
    }
    Expected<void> listen(int backlog) {
        return face::done(chiru_listen(channel_, name_, backlog));
    }
    Expected<void> connect(const sockaddr* address, socklen_t bytes) {
        return face::done(chiru_connect(channel_, name_, address, bytes));
    }
    Expected<Socket> accept(void* user = nullptr) {
        chiru_socket accepted = 0;
        if (const int result = chiru_accept(channel_, name_, user, &accepted); result < 0)
            return face::error(result);
        return Socket(channel_, accepted);
    }
    Expected<std::size_t> send(std::span<const std::byte> bytes, std::uint32_t flags = 0) {
        return face::count(chiru_send(channel_, name_, bytes.data(), bytes.size(), flags));
    }
    Expected<std::size_t> receive(std::span<std::byte> bytes, std::uint32_t flags = 0) {
        return face::count(chiru_recv(channel_, name_, bytes.data(), bytes.size(), flags));
    }
    /// Received data in place; every slice's token goes to Channel::release().
    Expected<std::span<chiru_slice>> receive_slices(std::span<chiru_slice> slices) {
        const int used = chiru_recv_slices(channel_, name_, slices.data(),
                                           static_cast<int>(slices.size()));
        if (used < 0) return face::error(used);
        return slices.first(static_cast<std::size_t>(used));
    }
    Expected<void> send(const Buffer& buffer, std::size_t offset, std::size_t bytes,
                        std::uint32_t flags = 0) {
        return face::done(
            chiru_send_buffer(channel_, name_, buffer.token(), offset, bytes, flags));
    }
    Expected<void> shutdown(std::uint32_t how) {
        return face::done(chiru_shutdown(channel_, name_, how));
    }
    Expected<void> set_option(chiru_option option, std::uint64_t value) {
        return face::done(chiru_set_option(channel_, name_, option, value));
    }
    Expected<chiru_info> info() const {
        chiru_info info;
        if (const int result = chiru_socket_info(channel_, name_, &info); result < 0)
            return face::error(result);
        return info;
    }
    std::error_code take_error() {
        return {chiru_socket_error(channel_, name_), std::generic_category()};
    }

private:
    chiru_channel* channel_ = nullptr;
    chiru_socket name_ = 0;
};

class Channel {
public:
    explicit Channel(chiru_channel* channel) : channel_(channel) {}

    chiru_channel* get() const { return channel_.get(); }

    Expected<Socket> socket(void* user = nullptr) {
        chiru_socket made = 0;
        if (const int result = chiru_socket_create(get(), user, &made); result < 0)
            return face::error(result);
        return Socket(get(), made);
    }
    Expected<Buffer> buffer(std::size_t bytes) {
        chiru_buffer made;
        if (const int result = chiru_buffer_alloc(get(), bytes, &made); result < 0)
            return face::error(result);
        return Buffer(get(), made);
    }
    /// The events that were fetched, at the front of `events`; none after the timeout.
    Expected<std::span<chiru_event>> poll(std::span<chiru_event> events,
                                          std::chrono::microseconds timeout) {
        const int used = chiru_poll(get(), events.data(), static_cast<int>(events.size()),
                                    timeout.count());
        if (used < 0) return face::error(used);
        return events.first(static_cast<std::size_t>(used));
    }
    Expected<void> release(std::span<const std::uint64_t> tokens) {
        return face::done(chiru_release(get(), tokens.data(), static_cast<int>(tokens.size())));
    }
    Expected<void> flush() { return face::done(chiru_flush(get())); }
    void set_spin(std::chrono::microseconds spin) {
        chiru_set_spin(get(), static_cast<std::uint32_t>(spin.count()));
    }

private:
    struct Destroy {
        void operator()(chiru_channel* channel) const { chiru_channel_destroy(channel); }
    };
    std::unique_ptr<chiru_channel, Destroy> channel_;
};

class Session {
public:
    /// As chiru_attach().
    static Expected<Session> attach(const char* program = nullptr, const char* path = nullptr) {
        chiru_session* session = nullptr;
        if (const int result = chiru_attach(path, program, &session); result < 0)
            return face::error(result);
        return Session(session);
    }
    explicit Session(chiru_session* session) : session_(session) {}

    chiru_session* get() const { return session_.get(); }
    Expected<Channel> open_channel() {
        chiru_channel* channel = nullptr;
        if (const int result = chiru_channel_create(get(), &channel); result < 0)
            return face::error(result);
        return Channel(channel);
    }

private:
    struct Detach {
        void operator()(chiru_session* session) const { chiru_detach(session); }
    };
    std::unique_ptr<chiru_session, Detach> session_;
};

}  // namespace chiru
