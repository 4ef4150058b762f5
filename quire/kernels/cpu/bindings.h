// What the binding files share. Only bindings*.cpp know Python; every function checks shapes, releases the GIL and launches.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>

#include "device.h"

namespace quire {

namespace nb = nanobind;

// An array as it must come: contiguous, on the CPU, of exactly this type (bind with .noconvert(): a silent copy would lose writes).
template <class T, size_t N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// Refuses a call of wrong shape: a mistake of the caller, said as one sentence.
inline void require(bool holds, const char* what) {
    if (!holds) throw nb::value_error(what);
}

// Runs f(runtime) on the device without the GIL.
template <class F>
void launch(Device& device, const F& f) {
    nb::gil_scoped_release release;
    device.launch(f);
}

void bind_cache(nb::module_& m);  // bindings_cache.cpp

}  // namespace quire
