#include "threads.h"

#include <chrono>

namespace quire {
namespace {

constexpr uint32_t kOpen = 1u << 31;
constexpr auto kSpin = std::chrono::microseconds(50);
constexpr int64_t kMostAhead = 1 << 18;  // bytes of its share that a waiting thread fetches: L2 holds other things too
constexpr int kLinesAhead = 4;           // between two looks at whether it still has to wait
constexpr auto kYield = std::chrono::microseconds(1000);

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int num_threads) : num_threads_(num_threads), shares_(new Share[num_threads]), placement_(num_threads) {
    try {
        for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back(&Pool::worker, this, thread);
    } catch (...) {  // the system refuses a thread: end those that run, or their handles' destructors end the process
        close();
        throw;
    }
}

Pool::~Pool() { close(); }

void Pool::close() {
    stop_.store(true);
    launches_.fetch_add(1);
    launches_.notify_all();
    for (std::thread& thread : workers_) thread.join();
    workers_.clear();
    num_threads_ = 1;
}

void Pool::run(int64_t num_chunks, Task task, const void* context) {
    if (num_threads_ == 1 || num_chunks <= 1) {
        for (int64_t chunk = 0; chunk < num_chunks; ++chunk) task(context, chunk);
        return;
    }
    placement_.spread(workers_);
    task_ = task;
    context_ = context;
    for (int t = 0; t < num_threads_; ++t) {
        shares_[t].next.store(num_chunks * t / num_threads_, std::memory_order_relaxed);
        shares_[t].end = num_chunks * (t + 1) / num_threads_;
    }
    gate_.store(kOpen, std::memory_order_release);
    launches_.fetch_add(1);
    launches_.notify_all();
    work(0);
    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; gate_.load(std::memory_order_acquire) != 0; ++spins) {
        // A worker inside holds the last chunks. If its core was taken away, give it ours.
        if (spins < 2000) fetch_or_pause(0);
        else std::this_thread::yield();
    }
}

void Pool::work(int thread) {
    for (int i = 0; i < num_threads_; ++i) {
        Share& share = shares_[(thread + i) % num_threads_];
        // The load first: an exhausted share is only read, its cache line stays shared.
        while (share.next.load(std::memory_order_relaxed) < share.end) {
            const int64_t chunk = share.next.fetch_add(1, std::memory_order_relaxed);
            if (chunk >= share.end) break;
            task_(context_, chunk);
        }
    }
}

void Pool::expect(const Stretch& stretch) {
    if (num_threads_ == 1) return;
    expected_.store(stretch.data, std::memory_order_relaxed);
    chunk_bytes_.store(stretch.chunk_bytes, std::memory_order_relaxed);
    num_chunks_.store(stretch.num_chunks, std::memory_order_relaxed);
    expectation_.fetch_add(1, std::memory_order_release);
}

// What is expected may change while somebody reads it: who reads half of it before and half after fetches what nobody wants, and
// no more than that, as fetching touches nothing.
void Pool::fetch_or_pause(int thread) {
    Share& share = shares_[thread];
    const uint32_t now = expectation_.load(std::memory_order_acquire);
    if (share.expectation != now) {
        share.expectation = now;
        const int64_t chunks = num_chunks_.load(std::memory_order_relaxed), each = chunk_bytes_.load(std::memory_order_relaxed);
        const int64_t first = chunks * thread / num_threads_, bytes = (chunks * (thread + 1) / num_threads_ - first) * each;
        share.ahead = expected_.load(std::memory_order_relaxed) + first * each;
        share.ahead_end = share.ahead + (bytes < kMostAhead ? bytes : kMostAhead);
    }
    if (share.ahead >= share.ahead_end) return pause();
    for (int line = 0; line < kLinesAhead; ++line) __builtin_prefetch(share.ahead + 64 * line, 0, 2);
    share.ahead += 64 * kLinesAhead;
}

uint32_t Pool::wait_for_launch(int thread, uint32_t seen) {
    const auto begin = std::chrono::steady_clock::now();
    for (auto waited = begin - begin; waited < kYield; waited = std::chrono::steady_clock::now() - begin) {
        if (waited > kSpin) std::this_thread::yield();
        for (int i = 0; i < 32; ++i) {
            const uint32_t now = launches_.load(std::memory_order_acquire);
            if (now != seen) return now;
            fetch_or_pause(thread);
        }
    }
    launches_.wait(seen, std::memory_order_acquire);
    return launches_.load(std::memory_order_acquire);
}

void Pool::worker(int thread) {
    uint32_t seen = 0;
    while (!stop_.load(std::memory_order_acquire)) {
        seen = wait_for_launch(thread, seen);
        placement_.arrived(thread);
        uint32_t gate = gate_.load(std::memory_order_acquire);
        while (gate & kOpen) {
            if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) continue;
            work(thread);
            gate_.fetch_sub(1, std::memory_order_acq_rel);
            break;
        }
    }
}

}  // namespace quire
