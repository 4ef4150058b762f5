// One pool of threads per device: hands out chunk numbers, never creates a thread in the steady state.
//
// A launch of `num_chunks` chunks gives every thread a contiguous share [t/T, (t+1)/T) of them; who has finished takes chunks
// from the others' shares, one at a time, so that a core that the operating system took away delays a launch by one chunk at
// most. The caller's thread takes part as thread 0. A worker that comes late finds the launch closed and goes back to wait.
// Waiting: 50 us of pause instructions; up to 1 ms of them with a yield between, so that whoever else wants the core has it at
// once; then sleep on a futex: an idle process burns nothing. Between two steps lie 0.1 to 0.3 ms of Python. A worker that slept
// through them comes back late and cold: 45 to 120 us of a step (a step of 0.25 ms; two threads; sleeping after 50 us).
// Threads keep out of each other's way (placement.h) but own no core. Measured on two cores of Zen 4: a launch costs 0.5 to 1.3 us
// while the workers spin; waking a sleeping one costs the caller 15 us.
// Who waits may fetch meanwhile (expect). Of a decode step of one row the products are a few dozen us each, and between them lie the
// rounding of the row, rope, and the ends of launches, when DRAM would rest. Qwen3-0.6B, one row, two threads, modes in turn within
// one process: int4 1.01-1.02 of the rate with 64 or 128 KiB a thread, 1.04 and 1.06 with 256, 1.045 with 512; bf16 1.00; int8 at
// 32 rows 0.98-1.00 (not done there); 2 to 8 MiB through L2 to L3 between two steps nothing beside that.
// Knows: threads. Does not know: what a chunk is.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "placement.h"
#include "stretch.h"

namespace quire {

class Pool {
public:
    using Task = void (*)(const void* context, int64_t chunk);

    explicit Pool(int num_threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int num_threads() const { return num_threads_; }

    // Calls task(context, chunk) once for every chunk in [0, num_chunks), and returns when all are done.
    // One launch at a time: the caller (Device) holds a lock. Tasks do not throw.
    void run(int64_t num_chunks, Task task, const void* context);

    // What a later launch will read. Whoever waits fetches the beginning of its own share of it, as it will be split, into its L2.
    void expect(const Stretch& stretch);

    // Ends and joins the workers; later launches run in the caller's thread alone.
    void close();

private:
    struct alignas(64) Share {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
        alignas(64) uint32_t expectation = 0;               // the one that the share's own thread fetches,
        const char *ahead = nullptr, *ahead_end = nullptr;  // and what of it is left
    };

    void worker(int thread);
    uint32_t wait_for_launch(int thread, uint32_t seen);
    void work(int thread);
    void fetch_or_pause(int thread);

    int num_threads_;
    std::unique_ptr<Share[]> shares_;
    Task task_ = nullptr;
    const void* context_ = nullptr;
    alignas(64) std::atomic<uint32_t> launches_{0};  // what sleepers watch
    alignas(64) std::atomic<uint32_t> gate_{0};      // top bit: open; rest: number of workers inside
    alignas(64) std::atomic<uint32_t> expectation_{0};  // counts them
    std::atomic<const char*> expected_{nullptr};
    std::atomic<int64_t> chunk_bytes_{0}, num_chunks_{0};
    std::atomic<bool> stop_{false};
    Placement placement_;
    std::vector<std::thread> workers_;
};

// pool.run for a lambda f(int64_t chunk).
template <class F>
static inline void parallel(Pool& pool, int64_t num_chunks, const F& f) {
    pool.run(num_chunks, [](const void* context, int64_t chunk) { (*static_cast<const F*>(context))(chunk); }, &f);
}

}  // namespace quire
