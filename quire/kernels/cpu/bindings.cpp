// The module quire.kernels.cpu._cpu: devices and the dense ops.
#include "bindings.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/unique_ptr.h>

#include <memory>
#include <optional>

#include "gather.h"
#include "isa.h"
#include "pack.h"

namespace quire {
namespace {

std::unique_ptr<Device> make_device(int num_threads, const std::string& name) {
    Isa isa;
    require(parse_isa(name, isa) && missing_for(isa).empty(), "Device: this machine lacks the instruction set");
    require(num_threads >= 1 && num_threads <= 1024, "Device: threads must be 1 to 1024");
    return std::make_unique<Device>(num_threads, isa);
}

using OptionalVector = std::optional<Array<const float, 1>>;

Input input_of(const OptionalVector& norm_weight, float eps, bool silu, int64_t k) {
    require(!norm_weight || !silu, "linear: the rows are either normalised or gated, not both");
    require(!norm_weight || int64_t(norm_weight->shape(0)) == k, "linear: norm's weight_K must have as many elements as the weight has inputs");
    if (norm_weight) return {InputKind::rms_norm, norm_weight->data(), eps};
    return {silu ? InputKind::silu_mul : InputKind::plain, nullptr, 0.0f};
}

auto kernel_of(const Kernels& kernels, WeightType type) {
    switch (type) {
        case WeightType::bf16: return kernels.linear_bf16;
        case WeightType::f32: return kernels.linear_f32;
        case WeightType::int8: return kernels.linear_int8;
        case WeightType::planes: return kernels.linear_planes;
        default: return kernels.linear_int4;
    }
}

void linear(Device& device, Array<const float, 2> x, const PackedWeight& weight, Array<float, 2> out, OptionalVector bias,
            bool accumulate, OptionalVector norm_weight, float eps, bool silu) {
    const int64_t rows = int64_t(x.shape(0));
    require(int64_t(x.shape(1)) == (silu ? 2 : 1) * weight.k,
            "linear: x_TK must have as many columns as the weight has inputs, twice as many with silu");
    require(int64_t(out.shape(0)) == rows && int64_t(out.shape(1)) == weight.n,
            "linear: out_TN must have the rows of x_TK and as many columns as the weight has outputs");
    require(!bias || int64_t(bias->shape(0)) == weight.n, "linear: bias_N must have as many elements as the weight has outputs");
    require(weight.type != WeightType::planes || (!bias && !accumulate), "linear: a weight of dtype int4x2 takes no bias and adds to nothing");
    const Linear args{x.data(),   weight.data.as<void>(), bias ? bias->data() : nullptr, out.data(), rows, weight.n, weight.k,
                      accumulate, input_of(norm_weight, eps, silu, weight.k), int32_t(weight.group), weight.symmetric};
    const auto kernel = kernel_of(device.kernels, weight.type);
    // More rows compute while their tiles fetch (qlinear.h): there nothing is gained by what waiting threads could fetch.
    const Stretch whole = stretch_of(weight.data.as<void>(), weight.panels(), weight.panel_bytes(), device.pool.num_threads());
    const Stretch reads = rows <= kStreamedRows ? whole : Stretch{};
    launch(device, [=](Runtime& runtime) { kernel(runtime, args); }, reads);
}

// Whether starts are those of `count` names of `rows` rows.
bool are_starts(const int32_t* starts, int64_t rows, int64_t count) {
    bool ascend = starts[0] == 0 && starts[rows] == count;
    for (int64_t row = 0; row < rows; ++row) ascend = ascend && starts[row] <= starts[row + 1];
    return ascend;
}

void refine(Device& device, Array<const float, 2> x, const PackedWeight& weight, Array<float, 2> logits, Array<const uint8_t, 1> how,
            std::optional<Array<const int32_t, 2>> mask, Array<const int32_t, 1> named, Array<const int32_t, 1> starts,
            OptionalVector norm_weight, float eps) {
    const int64_t rows = int64_t(x.shape(0)), words = (weight.n + 31) / 32;
    require(weight.type == WeightType::planes, "refine: the weight's dtype must be int4x2");
    require(int64_t(x.shape(1)) == weight.k, "refine: x_RK must have as many columns as the weight has inputs");
    require(int64_t(logits.shape(0)) == rows && int64_t(logits.shape(1)) == weight.n,
            "refine: logits_RV must have the rows of x_RK and as many columns as the weight has outputs");
    require(!mask || (int64_t(mask->shape(0)) == rows && int64_t(mask->shape(1)) == words),
            "refine: mask_RW must have a row for each of x_RK and a bit for each output");
    require(int64_t(how.shape(0)) == rows && int64_t(starts.shape(0)) == rows + 1, "refine: how_R and starts_R1 must fit the rows of x_RK");
    require(are_starts(starts.data(), rows, int64_t(named.shape(0))), "refine: starts_R1 must ascend from 0 to the number of names");
    require(indices_of(named).are_within(weight.n), "refine: named_N must be at least 0 and less than the weight's outputs");
    for (int64_t row = 0; row < rows; ++row) {
        require(how.data()[row] <= kAll && (how.data()[row] != kBestAllowed || mask), "refine: how_R must be 0, 2, or, with a mask, 1");
    }
    const Linear product{x.data(), weight.data.as<void>(), nullptr, logits.data(), rows, weight.n, weight.k,
                         false,    input_of(norm_weight, eps, false, weight.k), 0, true};
    const Refine args{product, how.data(), mask ? reinterpret_cast<const uint32_t*>(mask->data()) : nullptr, named.data(), starts.data()};
    launch(device, [kernel = device.kernels.refine, args](Runtime& runtime) { kernel(runtime, args); });
}

void embed(Device& device, Array<const int32_t, 1> ids, const PackedWeight& weight, Array<float, 2> out) {
    require(out.shape(0) == ids.shape(0) && int64_t(out.shape(1)) == weight.k,
            "embed: out_TH must have a row for each of ids_T and as many columns as the weight has inputs");
    const Indices rows = indices_of(ids);
    launch(device, [=, from = &weight, to = out.data()](Runtime& runtime) {
        require(rows.are_within(from->n), "embed: ids_T must be at least 0 and less than the weight's outputs");
        unpack_rows(runtime.pool, *from, rows.data, rows.count, to);
    });
}

void gather(Device& device, Array<const float, 2> x, Array<const int32_t, 1> rows, Array<float, 2> out) {
    require(out.shape(0) == rows.shape(0) && out.shape(1) == x.shape(1),
            "gather_rows: out_RH must have a row for each of rows_R and the columns of x_TH");
    const Indices chosen = indices_of(rows);
    const int64_t num_rows = int64_t(x.shape(0)), width = int64_t(x.shape(1));
    launch(device, [=, from = x.data(), to = out.data()](Runtime& runtime) {
        require(chosen.are_within(num_rows), "gather_rows: rows_R must be at least 0 and less than the rows of x_TH");
        gather_rows(runtime.pool, from, chosen.data, chosen.count, width, to);
    });
}

void rms_norm(Device& device, Array<const float, 2> x, Array<const float, 1> weight, float eps, Array<float, 2> out) {
    const int64_t rows = int64_t(x.shape(0)), width = int64_t(x.shape(1));
    require(int64_t(weight.shape(0)) == width, "rms_norm: weight_H must have as many elements as x_TH has columns");
    require(int64_t(out.shape(0)) == rows && int64_t(out.shape(1)) == width, "rms_norm: out_TH must have the shape of x_TH");
    const RmsNorm args{x.data(), weight.data(), out.data(), rows, width, eps};
    launch(device, [kernel = device.kernels.rms_norm, args](Runtime& runtime) { kernel(runtime, args); });
}

void silu_mul(Device& device, Array<const float, 2> gate_up, Array<float, 2> out) {
    const int64_t rows = int64_t(out.shape(0)), width = int64_t(out.shape(1));
    require(int64_t(gate_up.shape(0)) == rows && int64_t(gate_up.shape(1)) == 2 * width,
            "silu_mul: gate_up_T2I must have the rows of out_TI and twice its columns");
    const SiluMul args{gate_up.data(), out.data(), rows, width};
    launch(device, [kernel = device.kernels.silu_mul, args](Runtime& runtime) { kernel(runtime, args); });
}

}  // namespace
}  // namespace quire

NB_MODULE(_cpu, m) {
    using namespace quire;
    bind_cache(m);
    bind_program(m);
    bind_roof(m);
    bind_weight(m);
    bind_sample(m);
    m.def("best_isa", [] { return std::string(isa_name(best_isa())); });
    m.def("missing_for", [](const std::string& name) {
        Isa isa;
        require(parse_isa(name, isa), "missing_for: the instruction set must be generic, avx2, avx512 or amx");
        return missing_for(isa);
    });
    nb::class_<Device>(m, "Device")
        .def(nb::new_(&make_device))
        .def("close", &Device::close, nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("isa", [](const Device& device) { return std::string(isa_name(device.isa)); });
    def_op(m, "linear", &linear, nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg().noconvert(),
           nb::arg().noconvert().none(), nb::arg(), nb::arg().noconvert().none(), nb::arg(), nb::arg());
    m.def("refine", &refine, nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(),
          nb::arg().noconvert().none(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(), nb::arg());
    def_op(m, "embed", &embed, nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg().noconvert());
    def_op(m, "gather_rows", &gather, nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
    def_op(m, "rms_norm", &rms_norm, nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(),
           nb::arg().noconvert());
    def_op(m, "silu_mul", &silu_mul, nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
}
