// Keeps a pool's threads on cores of their own, without claiming any core for this process.
//
// Nothing is pinned beforehand: where a pool's threads stand is the operating system's choice, so two processes with the same
// affinity mask never end on one core while another is free, and processes with disjoint masks never meet. Only when two threads of
// this pool are seen on one core is one of them told to leave the cores that the others stand on; that holds until they meet
// again. The mask is asked of the launching thread, whose own is never changed, each time: cpusets and taskset are obeyed, also later.
//
// Why: two threads, 32 rows, 2 cores of Zen 4, a virtual machine whose kernel packs threads onto few virtual cores (sched_vcpu_pack):
// runs of the same program gave 186-208 GFLOP/s, one core's worth, or 400; with this 398-408 in runs on a free machine, with threads
// pinned 405-418. That the two shared a core is inferred from the rate and from CPU time (0.98-1.13 of 2 cores, with this 1.25-1.42,
// machine not free); it was not seen. On a loaded machine this too fell to one core's worth (173-210), and so did pinning (176);
// beside one spinning process it was within the noise of doing nothing. Pinning for good was not taken for the reasons above.
// Costs: sched_getcpu and a look at one cache line a worker and launch; a launch stays at 0.5 us.
// Knows: Linux's scheduler calls; elsewhere it does nothing. Does not know: launches.
#pragma once
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace quire {

class Placement {
public:
    explicit Placement(int num_threads);

    // Worker `thread` (1 or more) says on which core it woke up.
    void arrived(int thread);

    // The launching thread looks around; workers[t - 1] is thread t.
    void spread(std::vector<std::thread>& workers);

private:
    struct alignas(64) Place {
        std::atomic<int> core{-1};
    };

    bool met(int core) const;
    void part(int core, std::vector<std::thread>& workers);

    int num_threads_;
    bool room_;  // a core for every thread
    std::unique_ptr<Place[]> places_;
};

}  // namespace quire
