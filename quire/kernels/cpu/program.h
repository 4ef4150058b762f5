// A program: launches of one device, recorded in order with everything that they read and write kept alive.
//
// A recorded launch is a closure over values and raw pointers; `keep` holds an owner for each of the arrays, weights and caches
// that it points into. What is in them may change between two replays (that is the point); where they are may not. Checks of
// indices are part of the closures, so that they look at the indices of the replay, not of the recording.
// Knows: closures. Does not know: Python, which op a closure is, when a program has become stale (quire/runner).
#pragma once
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "table.h"

namespace quire {

class Program {
public:
    void keep(std::shared_ptr<const void> owner) { kept_.push_back(std::move(owner)); }
    // `reads`: what of its weight a launch reads, if it says so.
    void add(std::function<void(Runtime&)> launch, const Stretch& reads) {
        launches_.push_back({std::move(launch), reads.data != nullptr});
        if (reads.data) reads_.push_back(reads);
    }
    size_t size() const { return launches_.size(); }

    // All launches in order; what one throws ends it. Threads that wait fetch the beginning of what the next launch with a weight
    // reads; after the last one, of what the first one will read in the next replay.
    void run(Runtime& runtime) const {
        size_t num_begun = 0;  // of those with a weight
        for (const auto& launch : launches_) {
            if (launch.has_weight) runtime.pool.expect(reads_[++num_begun % reads_.size()]);
            launch.run(runtime);
        }
    }

private:
    struct Launch {
        std::function<void(Runtime&)> run;
        bool has_weight;
    };

    std::vector<std::shared_ptr<const void>> kept_;
    std::vector<Launch> launches_;
    std::vector<Stretch> reads_;  // of those with a weight, in order
};

// Which program a device's launches are added to. Only touched with Python's lock held. Launches of other threads than the one that
// records are not its own, and run as ever.
class Recording {
public:
    Program* program() const { return program_ && thread_ == std::this_thread::get_id() ? program_ : nullptr; }
    bool is_on() const { return program_ != nullptr; }
    void begin(Program& program) {
        program_ = &program;
        thread_ = std::this_thread::get_id();
    }
    void end() { program_ = nullptr; }

    bool keeps = false;  // the op under way has put its arguments into the program

private:
    Program* program_ = nullptr;
    std::thread::id thread_;
};

}  // namespace quire
