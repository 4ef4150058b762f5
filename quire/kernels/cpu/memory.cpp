#include "memory.h"

#include <sys/mman.h>

#include <new>
#include <utility>

namespace quire {
namespace {
constexpr size_t kHuge = size_t{2} << 20;
constexpr size_t kPage = 4096;
}  // namespace

Mapping::Mapping(size_t size_bytes) : size_bytes_(size_bytes) {
    if (size_bytes == 0) return;
    if (size_bytes > (size_t{1} << 50)) throw std::bad_alloc();
    const bool huge = size_bytes >= kHuge;
    base_bytes_ = (size_bytes + kPage - 1) / kPage * kPage + (huge ? kHuge : 0);
    base_ = mmap(nullptr, base_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) {
        base_ = nullptr;
        throw std::bad_alloc();
    }
    const size_t align = huge ? kHuge : kPage;
    data_ = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(base_) + align - 1) / align * align);
#ifdef MADV_HUGEPAGE
    if (huge) madvise(data_, size_bytes, MADV_HUGEPAGE);  // advice only: a refusal costs speed, not results
#endif
}

Mapping::~Mapping() {
    if (base_ != nullptr) munmap(base_, base_bytes_);
}

void Mapping::swap(Mapping& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(base_bytes_, other.base_bytes_);
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
}

void* Scratch::at_least(size_t size_bytes) {
    if (size_bytes > mapping_.size_bytes()) {
        Mapping larger(size_bytes + size_bytes / 2);
        mapping_.swap(larger);
    }
    return mapping_.as<void>();
}

}  // namespace quire
