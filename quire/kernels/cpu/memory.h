// Memory of the kernels: anonymous mappings on huge pages, and the scratch that a device keeps between launches.
// Measured (two cores of Zen 4, THP on "madvise", smaps): every whole 2 MiB of a mapping is really huge. First touch by two threads:
// 0.15 s a GiB, with 4 KiB pages 0.42-0.67 s; 2.8 s once, when the process was the first to use that memory of the virtual machine.
// One row of bf16 weights, runs in pairs on a loaded machine: 91 and 105 % of the read rate, from 4 KiB pages 75 and 89 %.
// Versions tried: MADV_POPULATE_WRITE first, by one or two threads: 0.11 s, then 0.05 s to write: the same 0.15 s, so packing
// touches first. Rounding every mapping up to 2 MiB: the last part of a weight (3 % of Qwen3-0.6B's) stays on 4 KiB pages; 0.2 GB.
// Knows: bytes. Does not know: what they mean.
#pragma once
#include <cstddef>
#include <cstdint>

namespace quire {

// An anonymous mapping, aligned to 2 MiB, huge pages advised, zero and untouched until written. Move-only by being not copyable.
class Mapping {
public:
    Mapping() = default;
    explicit Mapping(size_t size_bytes);  // throws std::bad_alloc
    // Bytes that somebody else owns, keeps alive and does not write; nobody writes through this either.
    Mapping(const void* borrowed, size_t size_bytes) : data_(const_cast<void*>(borrowed)), size_bytes_(size_bytes) {}
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    void swap(Mapping& other) noexcept;

    template <class T>
    T* as() const { return static_cast<T*>(data_); }
    size_t size_bytes() const { return size_bytes_; }

private:
    void* base_ = nullptr;
    size_t base_bytes_ = 0;
    void* data_ = nullptr;
    size_t size_bytes_ = 0;
};

// Grows, never shrinks: no allocation in the steady state. One op uses it at a time, from offset 0, and divides it itself.
class Scratch {
public:
    // At least `size_bytes` bytes, 64-byte aligned; what was in it may be lost. Throws std::bad_alloc.
    void* at_least(size_t size_bytes);

private:
    Mapping mapping_;
};

}  // namespace quire
