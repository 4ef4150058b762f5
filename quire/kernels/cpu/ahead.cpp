#include "ahead.h"

#include <algorithm>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace quire {
namespace {

constexpr size_t kPage = 4096;

#if defined(__linux__)
void set_policy(pthread_t thread, int policy) {
    const sched_param none{};
    pthread_setschedparam(thread, policy, &none);  // where it is refused it competes with others; that costs speed, no results
}
#endif

}  // namespace

Ahead::Ahead(char* begin) : begin_(begin), thread_(&Ahead::work, this) {}

Ahead::~Ahead() {
#if defined(__linux__)
    set_policy(thread_.native_handle(), SCHED_OTHER);  // whoever waits for it must not wait for an idle core
#endif
    stop_.store(true);
    wanted_.fetch_add(1);  // it wakes for another value only
    wanted_.notify_all();
    thread_.join();
}

void Ahead::want(size_t written, size_t wanted) {
    written_.store(std::max(written, written_.load(std::memory_order_relaxed)), std::memory_order_relaxed);
    if (wanted <= wanted_.load(std::memory_order_relaxed)) return;
    wanted_.store(wanted, std::memory_order_release);
    wanted_.notify_all();
}

void Ahead::work() {
#if defined(__linux__)
    set_policy(pthread_self(), SCHED_IDLE);
#endif
    size_t at = 0;
    while (!stop_.load(std::memory_order_acquire)) {
        const size_t wanted = wanted_.load(std::memory_order_acquire);
        at = std::max(at, written_.load(std::memory_order_relaxed) / kPage * kPage);
        if (at >= wanted) {
            wanted_.wait(wanted, std::memory_order_acquire);
            continue;
        }
        __atomic_fetch_or(begin_ + at, char{0}, __ATOMIC_RELAXED);
        at += kPage;
        done_.store(at, std::memory_order_release);
    }
}

}  // namespace quire
