// The table of kernels: one pointer per op, one table per instruction set, chosen once when a Device is made.
// To add an op: its arguments as a struct here, a line in one of the lists below, and <op>.cpp defining
//     namespace quire::QUIRE_ISA { void <op>(Runtime& runtime, const Args& args) {...} }
// Everything else in <op>.cpp stands in an unnamed namespace: a symbol that two instruction sets share could be taken from the
// wrong one by the linker. For the same reason kernels use no standard library templates.
// Knows: the arguments. Does not know: Python (bindings.cpp), shapes' checks (the doors in quire/ops).
#pragma once
#include <cstdint>

#include "isa.h"
#include "kv_cache.h"
#include "memory.h"
#include "panel.h"
#include "part.h"
#include "qformat.h"
#include "sample_args.h"
#include "threads.h"

namespace quire {

struct Runtime {
    Pool& pool;
    Scratch& scratch;
};

struct RmsNorm {
    const float* x;       // [rows, width]
    const float* weight;  // [width]
    float* out;           // [rows, width]
    int64_t rows, width;
    float eps;
};

struct SiluMul {
    const float* gate_up;  // [rows, 2 * width]
    float* out;            // [rows, width]
    int64_t rows, width;
};

// What happens to a row of x on its way into a product; see linear_input.h.
enum class InputKind { plain, rms_norm, silu_mul };

struct Input {
    InputKind kind;
    const float* norm_weight;  // [k], of rms_norm
    float eps;
};

struct Linear {
    const float* x;      // [rows, k]; of silu_mul [rows, 2 * k], the gate's half first
    const void* weight;  // packed panels, see pack.h
    const float* bias;   // [n] or null
    float* out;          // [rows, n]
    int64_t rows, n, k;
    bool accumulate;  // out += instead of out =
    Input input;
    int32_t group;   // of int8 and int4 weights, see qformat.h
    bool symmetric;  // likewise
};

struct Quantize {
    const Part* parts;  // one below the other, n rows of format.k
    int64_t num_parts, n;
    QFormat format;
    uint8_t* out;         // panels, see qformat.h; of planes likewise, and what stands behind them: qplanes.h
    int32_t* not_finite;  // becomes 1 when a weight is infinite or NaN
};

// Columns of a product with planes that are to be exact; see planes.h.
struct Refine {
    Linear product;           // whose `out` was made by linear_planes
    const uint8_t* how;       // [rows] of RefineHow
    const uint32_t* mask;     // [rows, (n + 31) / 32], bit 1: allowed; or null when no row wants the allowed
    const int32_t* named;     // columns, those of row r at [starts[r], starts[r + 1])
    const int32_t* starts;    // [rows + 1]
};
enum RefineHow : uint8_t { kNamedAlone = 0, kBestAllowed = 1, kAll = 2 };

struct RopeStore {
    const float* qkv;                  // [rows, (num_heads + 2 * kv.num_kv_heads) * kv.head_dim]
    const int32_t *positions, *slots;  // [rows]; checked by the binding
    const float *cosines, *sines;      // [table rows, kv.head_dim / 2]
    const float *q_norm, *k_norm;      // [kv.head_dim] or null
    float* q_out;                      // [rows, num_heads, kv.head_dim]
    int32_t* flaws;                    // [1 + rows] or null: 1 in [0] and [1 + row] where k or v of a row is not finite
    int64_t rows, num_heads, layer;
    float eps;
    KvView kv;
};

struct Attention {
    const float* q;               // [rows, num_heads, kv.head_dim]
    const int32_t* query_starts;  // [num_seqs + 1]; all three checked by the binding
    const int32_t* seq_lens;      // [num_seqs]
    const int32_t* block_tables;  // [num_seqs, table_width]
    float* out;                   // as q
    int64_t num_seqs, table_width, num_heads, layer;
    int32_t group;  // query heads per kv head
    float scale;
    KvView kv;
};

// Probes of the roof, see roof.cpp.
struct RoofRead {
    const char* data;
    int64_t bytes, ahead;  // prefetch so many bytes before reading; 0: do not
};

struct RoofMultiply {
    enum Type { float32, bfloat16, int8 } type;
    int64_t rounds;
    int64_t* num_ops;  // out: multiplications and additions done by all threads
};

// clang-format off
// Of these amx has its own kernels; the others it takes from avx512.
#define QUIRE_OPS_WITH_TILES(X) \
    X(linear_bf16, Linear)  \
    X(linear_int8, Linear)  \
    X(linear_int4, Linear)  \
    X(linear_planes, Linear) \
    X(refine, Refine)       \
    X(attention, Attention) \
    X(roof_read, RoofRead) \
    X(roof_multiply, RoofMultiply)
#define QUIRE_OPS_WITHOUT_TILES(X) \
    X(rms_norm, RmsNorm)    \
    X(silu_mul, SiluMul)    \
    X(linear_f32, Linear)   \
    X(quantize, Quantize)   \
    X(quantize_planes, Quantize) \
    X(rope_store, RopeStore) \
    X(sample, Sample)
#define QUIRE_OPS(X) QUIRE_OPS_WITH_TILES(X) QUIRE_OPS_WITHOUT_TILES(X)
// clang-format on

struct Kernels {
#define QUIRE_MEMBER(op, Args) void (*op)(Runtime&, const Args&);
    QUIRE_OPS(QUIRE_MEMBER)
#undef QUIRE_MEMBER
};

extern const Kernels kernels_generic, kernels_avx2, kernels_avx512, kernels_amx;

}  // namespace quire

#ifdef QUIRE_ISA
#define QUIRE_DECLARE(op, Args) void op(Runtime& runtime, const Args& args);
#if QUIRE_ISA_amx
namespace quire::avx512 {
QUIRE_OPS_WITHOUT_TILES(QUIRE_DECLARE)
}  // namespace quire::avx512
namespace quire::amx {
QUIRE_OPS_WITH_TILES(QUIRE_DECLARE)
#define QUIRE_TAKE(op, Args) using avx512::op;
QUIRE_OPS_WITHOUT_TILES(QUIRE_TAKE)
#undef QUIRE_TAKE
}  // namespace quire::amx
#else
namespace quire::QUIRE_ISA {
QUIRE_OPS(QUIRE_DECLARE)
}  // namespace quire::QUIRE_ISA
#endif
#undef QUIRE_DECLARE
#endif
