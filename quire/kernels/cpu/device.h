// A device: an instruction set's kernels, a pool of threads and scratch, used by one launch at a time.
// Knows: table, pool, scratch. Does not know: Python, ops.
#pragma once
#include <mutex>
#include <stdexcept>

#include "program.h"

namespace quire {

inline const Kernels& kernels_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::amx) return kernels_amx;
    if (isa == Isa::avx512) return kernels_avx512;
    if (isa == Isa::avx2) return kernels_avx2;
#endif
    return kernels_generic;
}

struct Device {
    Device(int num_threads, Isa isa) : isa(isa), kernels(kernels_of(isa)), pool(num_threads) {}

    // Runs f(runtime) alone on this device. Two threads may call; the second waits.
    template <class F>
    void launch(const F& f) {
        std::lock_guard<std::mutex> lock(busy);
        if (closed) throw std::runtime_error("this Device is closed");
        Runtime runtime{pool, scratch};
        f(runtime);
    }

    // Runs a program alone on this device, as one launch.
    void replay(const Program& program) {
        launch([&](Runtime& runtime) { program.run(runtime); });
    }

    void close() {
        std::lock_guard<std::mutex> lock(busy);
        if (!closed) pool.close();
        closed = true;
    }

    const Isa isa;
    const Kernels& kernels;
    Pool pool;
    Scratch scratch;
    std::mutex busy;
    bool closed = false;
    Recording recording;
};

}  // namespace quire
