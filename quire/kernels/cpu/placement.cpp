#include "placement.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>

namespace quire {
namespace {

bool cores_of_this_thread(cpu_set_t& cores) { return sched_getaffinity(0, sizeof cores, &cores) == 0; }

}  // namespace

Placement::Placement(int num_threads) : num_threads_(num_threads), places_(new Place[num_threads]) {
    cpu_set_t cores;
    room_ = num_threads > 1 && cores_of_this_thread(cores) && CPU_COUNT(&cores) >= num_threads;
}

void Placement::arrived(int thread) {
    const int core = room_ ? sched_getcpu() : -1;
    std::atomic<int>& known = places_[thread].core;
    if (known.load(std::memory_order_relaxed) != core) known.store(core, std::memory_order_relaxed);
}

// Whether any two threads stand on one core, the launching thread on `core`.
bool Placement::met(int core) const {
    cpu_set_t taken;
    CPU_ZERO(&taken);
    CPU_SET(core, &taken);
    for (int t = 1; t < num_threads_; ++t) {
        const int other = places_[t].core.load(std::memory_order_relaxed);
        if (other < 0 || other >= CPU_SETSIZE) continue;
        if (CPU_ISSET(other, &taken)) return true;
        CPU_SET(other, &taken);
    }
    return false;
}

// Sends every worker that stands where an earlier thread stands to the cores that nobody stands on.
void Placement::part(int core, std::vector<std::thread>& workers) {
    cpu_set_t free, taken;
    if (!cores_of_this_thread(free) || CPU_COUNT(&free) < num_threads_) {
        room_ = false;  // the mask was narrowed: the operating system shares out what is left
        return;
    }
    CPU_ZERO(&taken);
    CPU_SET(core, &taken);
    CPU_CLR(core, &free);
    for (int t = 1; t < num_threads_; ++t) {
        const int place = places_[t].core.load(std::memory_order_relaxed);
        if (place >= 0 && place < CPU_SETSIZE) CPU_CLR(place, &free);
    }
    for (int t = 1; t < num_threads_; ++t) {
        const int place = places_[t].core.load(std::memory_order_relaxed);
        if (place < 0 || place >= CPU_SETSIZE) continue;
        if (CPU_ISSET(place, &taken) && CPU_COUNT(&free) > 0) {
            pthread_setaffinity_np(workers[size_t(t) - 1].native_handle(), sizeof free, &free);
            places_[t].core.store(-1, std::memory_order_relaxed);  // until it says where it went
        }
        CPU_SET(place, &taken);
    }
}

void Placement::spread(std::vector<std::thread>& workers) {
    if (!room_) return;
    const int core = sched_getcpu();
    if (core >= 0 && core < CPU_SETSIZE && met(core)) part(core, workers);
}

}  // namespace quire

#else

namespace quire {

Placement::Placement(int num_threads) : num_threads_(num_threads), room_(false) {}
void Placement::arrived(int) {}
void Placement::spread(std::vector<std::thread>&) {}

}  // namespace quire

#endif
