// The paged cache and its two ops for Python: shapes and every index are checked here, so that a kernel never reads or writes
// outside an array, whatever the caller sends.
#include <nanobind/stl/optional.h>

#include <cmath>
#include <memory>
#include <optional>

#include "bindings.h"

namespace quire {
namespace {

using IndexArray = Array<const int32_t, 1>;
using OptionalWeights = std::optional<Array<const float, 1>>;
using OptionalFlaws = std::optional<Array<int32_t, 1>>;

void require_layer(const KvView& kv, int64_t layer) {
    require(layer >= 0 && layer < kv.num_layers, "layer must be 0 or more and below the cache's num_layers");
}

const float* norm_weights(const OptionalWeights& weights, const KvView& kv) {
    if (!weights) return nullptr;
    require(int64_t(weights->shape(0)) == kv.head_dim, "rope_store: q_norm_D and k_norm_D must have head_dim elements");
    return weights->data();
}

void rope_store(Device& device, Array<const float, 2> qkv, IndexArray positions, IndexArray slots, Array<const float, 2> cosines,
                Array<const float, 2> sines, KVCache& cache, int64_t layer, OptionalWeights q_norm, OptionalWeights k_norm,
                float eps, Array<float, 3> q_out, OptionalFlaws flaws) {
    const KvView& kv = cache.view();
    const size_t rows = qkv.shape(0), dim = size_t(kv.head_dim), num_heads = q_out.shape(1);
    require_layer(kv, layer);
    require(q_out.shape(0) == rows && q_out.shape(2) == dim, "rope_store: q_out_TQD must be [rows of qkv_TN, Q, head_dim]");
    require(qkv.shape(1) == (num_heads + 2 * size_t(kv.num_kv_heads)) * dim,
            "rope_store: qkv_TN must have (Q + 2 * num_kv_heads) * head_dim columns");
    require(positions.shape(0) == rows && slots.shape(0) == rows, "rope_store: positions_T and slots_T must have a row of qkv_TN each");
    require(cosines.shape(1) == dim / 2 && sines.shape(1) == dim / 2 && cosines.shape(0) == sines.shape(0),
            "rope_store: cos_PD2 and sin_PD2 must both be [P, head_dim / 2]");
    require(!flaws || flaws->shape(0) == rows + 1, "rope_store: flaws_T1 must have one element more than qkv_TN has rows");
    const RopeStore args{qkv.data(),   positions.data(), slots.data(), cosines.data(), sines.data(),
                         norm_weights(q_norm, kv), norm_weights(k_norm, kv), q_out.data(), flaws ? flaws->data() : nullptr,
                         int64_t(rows), int64_t(num_heads), layer, eps, kv};
    const Indices at = indices_of(positions), to = indices_of(slots);
    const int64_t num_positions = int64_t(cosines.shape(0)), num_slots = int64_t{kv.num_blocks} * kv.block_size;
    KVCache* const pool = layer == 0 && rows ? &cache : nullptr;
    launch(device, [=, kernel = device.kernels.rope_store](Runtime& runtime) {
        require(at.are_within(num_positions), "rope_store: a position is outside the rope table; allowed: 0 to P - 1");
        require(to.are_within(num_slots), "rope_store: a slot is outside the cache; allowed: 0 to num_blocks * block_size - 1");
        if (pool) pool->wrote(to.highest() / pool->view().block_size);
        kernel(runtime, args);
    });
}

// What the index arrays of an attention launch hold: rows, lengths, and the table entries that they need.
void require_sequences(const Attention& args, int64_t rows) {
    const int32_t* starts = args.query_starts;
    require(starts[0] == 0 && starts[args.num_seqs] == rows, "attention: query_starts_S1 must begin with 0 and end with T");
    for (int64_t s = 0; s < args.num_seqs; ++s) {
        require(starts[s] <= starts[s + 1], "attention: query_starts_S1 must not descend");
        require(args.seq_lens[s] >= starts[s + 1] - starts[s], "attention: seq_lens_S must count the sequence's rows too");
        const int64_t num_blocks = (int64_t{args.seq_lens[s]} + args.kv.block_size - 1) / args.kv.block_size;
        require(num_blocks <= args.table_width, "attention: block_tables_SB has too few columns for seq_lens_S");
        const Indices blocks{args.block_tables + s * args.table_width, num_blocks};
        require(blocks.are_within(args.kv.num_blocks), "attention: a block table names a block outside the cache");
    }
}

void attention(Device& device, Array<const float, 3> q, KVCache& cache, int64_t layer, IndexArray query_starts, IndexArray seq_lens,
               Array<const int32_t, 2> block_tables, float scale, Array<float, 2> out) {
    const KvView& kv = cache.view();
    const int64_t rows = int64_t(q.shape(0)), num_heads = int64_t(q.shape(1)), num_seqs = int64_t(seq_lens.shape(0));
    const int64_t table_width = int64_t(block_tables.shape(1));
    require_layer(kv, layer);
    require(int64_t(q.shape(2)) == kv.head_dim, "attention: q_TQD must have the cache's head_dim");
    require(num_heads > 0 && num_heads % kv.num_kv_heads == 0, "attention: query heads must be a multiple of the cache's kv heads");
    require(int64_t(out.shape(0)) == rows && int64_t(out.shape(1)) == num_heads * kv.head_dim,
            "attention: out_T_QD must be [T, Q * head_dim]");
    require(int64_t(query_starts.shape(0)) == num_seqs + 1 && int64_t(block_tables.shape(0)) == num_seqs,
            "attention: query_starts_S1, seq_lens_S and block_tables_SB must have S + 1, S and S rows");
    require(std::isfinite(scale), "attention: scale must be finite");
    const Attention args{q.data(),    query_starts.data(), seq_lens.data(), block_tables.data(), out.data(),
                         num_seqs, table_width, num_heads, layer, int32_t(num_heads / kv.num_kv_heads), scale, kv};
    launch(device, [=, kernel = device.kernels.attention](Runtime& runtime) {
        require_sequences(args, rows);
        kernel(runtime, args);
    });
}

KvDtype parse_dtype(const std::string& name) {
    require(name == "bfloat16" || name == "float32" || name == "int8", "KVCache: dtype must be bfloat16, float32 or int8");
    return name == "int8" ? KvDtype::int8 : name == "bfloat16" ? KvDtype::bfloat16 : KvDtype::float32;
}

// A new array [block_size, G, D] that owns its memory.
nb::ndarray<nb::numpy, float, nb::ndim<3>> owned_array(std::unique_ptr<float[]> data, const KvView& kv) {
    float* floats = data.release();
    nb::capsule owner(floats, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return {floats, {size_t(kv.block_size), size_t(kv.num_kv_heads), size_t(kv.head_dim)}, owner};
}

nb::tuple read_block(const KVCache& cache, int64_t layer, int64_t block) {
    const KvView& kv = cache.view();
    const size_t size = size_t(kv.block_size) * size_t(kv.num_kv_heads) * size_t(kv.head_dim);
    std::unique_ptr<float[]> k(new float[size]), v(new float[size]);
    cache.read(layer, block, k.get(), v.get());
    return nb::make_tuple(owned_array(std::move(k), kv), owned_array(std::move(v), kv));
}

void copy_blocks(KVCache& cache, Array<const int64_t, 2> pairs) {
    require(pairs.shape(1) == 2, "KVCache.copy_blocks: pairs must be [n, 2], source and destination");
    nb::gil_scoped_release release;
    cache.copy_blocks(pairs.data(), int64_t(pairs.shape(0)));
}

}  // namespace

void bind_cache(nb::module_& m) {
    const auto exact = [] { return nb::arg().noconvert(); };
    nb::class_<KVCache>(m, "KVCache")
        .def("__init__",
             [](KVCache* self, int64_t num_layers, int64_t num_blocks, int64_t block_size, int64_t num_kv_heads, int64_t head_dim,
                const std::string& dtype) {
                 new (self) KVCache(num_layers, num_blocks, block_size, num_kv_heads, head_dim, parse_dtype(dtype));
             })
        .def_prop_ro("nbytes", &KVCache::nbytes)
        .def_prop_ro("block_nbytes", &KVCache::block_nbytes)
        .def("keep_ahead", &KVCache::keep_ahead)
        .def_prop_ro("num_ready", &KVCache::num_ready)
        .def("copy_blocks", &copy_blocks, exact())
        .def("read", &read_block);
    def_op(m, "rope_store", &rope_store, nb::arg(), exact(), exact(), exact(), exact(), exact(), nb::arg(), nb::arg(),
           exact().none(), exact().none(), nb::arg(), exact(), exact().none());
    def_op(m, "attention", &attention, nb::arg(), exact(), nb::arg(), nb::arg(), exact(), exact(), exact(), nb::arg(), exact());
}

}  // namespace quire
