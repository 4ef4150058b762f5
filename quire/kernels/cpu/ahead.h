// Memory made resident before it is written, by a thread that the system runs only where a core has nothing else to do.
//
// The first write to a page of new memory waits until the system has found and zeroed it. In a virtual machine that gives free
// memory back to its host that is dear. Qwen3-0.6B's shape, int4, 32 requests of 128 tokens in and 64 out, two cores of Zen 4: of
// 13.2 s storing keys and values took 1.25 s in blocks that were never written, 0.32 s in blocks that were; of a prompt of
// 2,048 tokens in 4.6 s 0.43 and 0.10 s.
// One page is touched at a time, as a kernel would: a fault holds no lock that anybody who maps memory has to wait for, which
// MADV_POPULATE_WRITE would. The touch adds nothing, atomically: what is written meanwhile stays.
// Knows: bytes. Does not know: blocks, how far ahead is worth it.
#pragma once
#include <atomic>
#include <cstddef>
#include <thread>

namespace quire {

class Ahead {
public:
    // Of `begin`; it must outlive this. Throws std::system_error where there can be no more threads.
    explicit Ahead(char* begin);
    ~Ahead();
    Ahead(const Ahead&) = delete;
    Ahead& operator=(const Ahead&) = delete;

    // The first `written` bytes are resident, and the first `wanted` shall be, sooner or later. Never less than before.
    void want(size_t written, size_t wanted);
    // Bytes from `begin` on that have been seen to.
    size_t done() const { return done_.load(std::memory_order_acquire); }

private:
    void work();

    char* const begin_;
    std::atomic<size_t> written_{0}, done_{0};
    std::atomic<size_t> wanted_{0};
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace quire
