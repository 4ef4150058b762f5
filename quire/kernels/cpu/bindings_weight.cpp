// The Python side of packed weights: making them from arrays or from bytes, reading them back.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/unique_ptr.h>

#include <memory>
#include <optional>
#include <vector>

#include "bindings.h"
#include "pack.h"

namespace quire {
namespace {

using Matrix = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

struct Parts {
    std::vector<Matrix> held;  // keeps the arrays alive while they are read
    std::vector<Part> parts;
    int64_t n = 0, k = 0;
};

Number number_of(const Matrix& part) {
    if (part.dtype() == nb::dtype<float>()) return Number::f32;
    if (part.dtype() == nb::dtype<uint16_t>()) return Number::bf16;
    const auto type = part.dtype();
    require(type.code == uint8_t(nb::dlpack::dtype_code::Float) && type.bits == 16 && type.lanes == 1,
            "pack: a part's type must be float32, float16, or uint16 holding bfloat16 bits");
    return Number::f16;
}

Parts parts_of(nb::list arrays) {
    Parts result;
    for (nb::handle array : arrays) {
        Matrix part;
        if (!nb::try_cast<Matrix>(array, part, false)) {
            throw nb::type_error("pack: every part must be a C-contiguous two-dimensional array");
        }
        result.held.push_back(part);
        result.parts.push_back({part.data(), int64_t(part.shape(0)), number_of(part)});
        require(part.shape(1) == result.held[0].shape(1), "pack: the parts must have equally many columns");
        result.n += int64_t(part.shape(0));
        result.k = int64_t(part.shape(1));
    }
    require(result.n > 0 && result.k > 0, "pack: there must be at least one row and one column");
    return result;
}

const char* type_name(const PackedWeight& weight) {
    switch (weight.type) {
        case WeightType::bf16: return "bfloat16";
        case WeightType::f32: return "float32";
        case WeightType::int8: return "int8";
        case WeightType::planes: return "int4x2";
        default: return "int4";
    }
}

WeightType type_of(const std::string& name) {
    if (name == "bfloat16") return WeightType::bf16;
    if (name == "float32") return WeightType::f32;
    if (name == "int8") return WeightType::int8;
    if (name == "int4x2") return WeightType::planes;
    require(name == "int4", "a packed weight's dtype must be bfloat16, float32, int8, int4 or int4x2");
    return WeightType::int4;
}

// group_size as Python says it: 0 without scales, k when per channel.
int64_t group_size(const PackedWeight& weight) { return !weight.quantized() ? 0 : weight.group ? weight.group : weight.k; }

void require_groups(WeightType type, int64_t group, bool symmetric) {
    require(type != WeightType::planes || group == 0, "quantize: int4x2 has one scale a row");
    require(group == 0 || group == 32 || group == 64 || group == 128, "quantize: group_size must be None, 32, 64 or 128");
    require(symmetric || (type == WeightType::int4 && group != 0), "quantize: only int4 in groups can be asymmetric");
}

// One group is one scale per output: the same weights, whatever it was called. (Offsets exist in groups only.)
int64_t normal_group(int64_t group, int64_t k, bool symmetric) { return symmetric && group >= k ? 0 : group; }

std::unique_ptr<PackedWeight> pack_parts(Device& device, nb::list arrays, const std::string& dtype) {
    require(dtype == "bfloat16" || dtype == "float32", "pack: dtype must be bfloat16 or float32");
    const Parts from = parts_of(arrays);
    auto weight = std::make_unique<PackedWeight>(from.n, from.k, type_of(dtype));
    launch(device, [&](Runtime& runtime) { pack(runtime.pool, from.parts, *weight); });  // by reference: pack is never recorded
    return weight;
}

std::unique_ptr<PackedWeight> quantize_with(Device& device, void (*kernel)(Runtime&, const Quantize&), const Parts& from,
                                            WeightType type, int64_t group, bool symmetric) {
    auto weight = std::make_unique<PackedWeight>(from.n, from.k, type, normal_group(group, from.k, symmetric), symmetric);
    int32_t not_finite = 0;
    const Quantize args{from.parts.data(), int64_t(from.parts.size()), from.n, weight->qformat(), weight->data.as<uint8_t>(),
                        &not_finite};
    launch(device, [&](Runtime& runtime) { kernel(runtime, args); });  // by reference: never recorded
    require(!not_finite, "quantize: the weights hold an infinity or a NaN");
    return weight;
}

std::unique_ptr<PackedWeight> quantize_parts(Device& device, nb::list arrays, int bits, std::optional<int64_t> group,
                                             bool symmetric) {
    require(bits == 8 || bits == 4, "quantize: bits must be 8 or 4");
    const WeightType type = bits == 8 ? WeightType::int8 : WeightType::int4;
    require(!group || *group != 0, "quantize: group_size must be None, 32, 64 or 128");
    require_groups(type, group.value_or(0), symmetric);
    return quantize_with(device, device.kernels.quantize, parts_of(arrays), type, group.value_or(0), symmetric);
}

std::unique_ptr<PackedWeight> quantize_planes(Device& device, nb::list arrays) {
    return quantize_with(device, device.kernels.quantize_planes, parts_of(arrays), WeightType::planes, 0, true);
}

std::unique_ptr<PackedWeight> from_buffer(int64_t n, int64_t k, const std::string& dtype, int64_t group, bool symmetric,
                                          const Bytes& bytes) {
    require(n > 0 && k > 0 && n <= int64_t{1} << 31 && k <= int64_t{1} << 31, "from_buffer: n and k must be at least 1");
    const WeightType type = type_of(dtype);
    const bool quantized = type != WeightType::bf16 && type != WeightType::f32;
    if (!quantized) require(group == 0 && symmetric, "from_buffer: bfloat16 and float32 weights have no groups");
    else require_groups(type, normal_group(group, k, symmetric), symmetric);
    auto weight = std::make_unique<PackedWeight>(n, k, type, normal_group(group, k, symmetric), symmetric, bytes.data());
    require(weight->expected_bytes() == bytes.shape(0), "from_buffer: the buffer's length does not fit the weight");
    require(uintptr_t(bytes.data()) % 64 == 0, "from_buffer: the buffer must begin at a multiple of 64 bytes");
    return weight;
}

void unpack(Device& device, const PackedWeight& weight, Array<float, 2> out) {
    require(int64_t(out.shape(0)) == weight.n && int64_t(out.shape(1)) == weight.k, "unpack: out must be [n, k]");
    launch(device, [from = &weight, to = out.data()](Runtime& runtime) { unpack_rows(runtime.pool, *from, nullptr, from->n, to); });
}

nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>> buffer_of(nb::handle_t<PackedWeight> self) {  // the array keeps the weight alive
    const auto& weight = nb::cast<const PackedWeight&>(self);
    return {weight.data.as<uint8_t>(), {weight.data.size_bytes()}, self};
}

}  // namespace

void bind_weight(nb::module_& m) {
    nb::class_<PackedWeight>(m, "PackedWeight")
        .def_ro("n", &PackedWeight::n)
        .def_ro("k", &PackedWeight::k)
        .def_ro("symmetric", &PackedWeight::symmetric)
        .def_prop_ro("dtype", &type_name)
        .def_prop_ro("group_size", &group_size)
        .def_prop_ro("nbytes", [](const PackedWeight& weight) { return weight.data.size_bytes(); })
        .def("buffer", &buffer_of);
    m.def("pack", &pack_parts);
    m.def("quantize", &quantize_parts, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg());
    m.def("quantize_planes", &quantize_planes);
    m.def("from_buffer", &from_buffer, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(),
          nb::keep_alive<0, 6>());
    m.def("unpack", &unpack, nb::arg(), nb::arg(), nb::arg().noconvert());
}

}  // namespace quire
