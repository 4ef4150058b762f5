// The probes of the roof for Python.
#include "bindings.h"

namespace quire {
namespace {

RoofMultiply::Type type_of(const std::string& dtype) {
    require(dtype == "float32" || dtype == "bfloat16" || dtype == "int8", "roof_multiply: dtype must be float32, bfloat16 or int8");
    if (dtype == "float32") return RoofMultiply::float32;
    return dtype == "bfloat16" ? RoofMultiply::bfloat16 : RoofMultiply::int8;
}

void roof_read(Device& device, Array<const uint8_t, 1> data, int64_t ahead) {
    require(ahead >= 0, "roof_read: ahead must not be negative");
    const RoofRead args{reinterpret_cast<const char*>(data.data()), int64_t(data.shape(0)), ahead};
    launch(device, [args, kernel = device.kernels.roof_read](Runtime& runtime) { kernel(runtime, args); });
}

int64_t roof_multiply(Device& device, const std::string& dtype, int64_t rounds) {
    require(rounds >= 1, "roof_multiply: rounds must be 1 or more");
    int64_t num_ops = 0;
    const RoofMultiply args{type_of(dtype), rounds, &num_ops};
    launch(device, [args, kernel = device.kernels.roof_multiply](Runtime& runtime) { kernel(runtime, args); });
    return num_ops;
}

}  // namespace

void bind_roof(nb::module_& m) {
    m.def("roof_read", &roof_read, nb::arg(), nb::arg().noconvert(), nb::arg());
    m.def("roof_multiply", &roof_multiply);
}

}  // namespace quire
