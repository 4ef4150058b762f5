// What the binding files share. Only bindings*.cpp know Python; every function checks shapes, releases the GIL and launches.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "device.h"

namespace quire {

namespace nb = nanobind;

// An array as it must come: contiguous, on the CPU, of exactly this type (bind with .noconvert(): a silent copy would lose writes).
template <class T, size_t N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

template <class T>
constexpr bool is_array = false;
template <class... Parts>
constexpr bool is_array<nb::ndarray<Parts...>> = true;

// Refuses a call of wrong shape: a mistake of the caller, said as one sentence.
inline void require(bool holds, const char* what) {
    if (!holds) throw nb::value_error(what);
}

// An array of indices, as a launch holds it.
struct Indices {
    const int32_t* data;
    int64_t count;

    // Of none 0. A negative index becomes a large one; no early end, so that it runs as vectors.
    int64_t highest() const {
        uint32_t highest = 0;
        for (int64_t i = 0; i < count; ++i) highest = std::max(highest, uint32_t(data[i]));
        return highest;
    }
    bool are_within(int64_t end) const { return count == 0 || highest() < end; }
};

inline Indices indices_of(const Array<const int32_t, 1>& array) { return {array.data(), int64_t(array.shape(0))}; }

// Runs f(runtime) on the device without Python's lock: the only way from a binding to a kernel. While the device records, f is
// also added to the program, so f captures by value alone ([=]; pointers into arguments that def_op keeps). f may throw require's
// errors: checks of what an array holds (indices) stand inside f, checks of shapes before the launch.
template <class F>
void launch(Device& device, const F& f, const Stretch& reads = {}) {
    Program* const program = device.recording.program();
    if (program && !device.recording.keeps) throw std::runtime_error("this call cannot be recorded");
    {
        nb::gil_scoped_release release;
        device.launch(f);
    }
    if (program) program->add(f, reads);
}

// Keeps alive what a recorded launch points into: nothing for numbers, else the array or the object that Python holds.
template <class T>
void keep(Program& program, const T& argument) {
    if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
        return;
    } else if constexpr (is_array<T>) {
        program.keep(std::make_shared<const T>(argument));
    } else {
        program.keep(std::make_shared<const nb::object>(nb::find(argument)));
    }
}

template <class T>
void keep(Program& program, const std::optional<T>& argument) {
    if (argument) keep(program, *argument);
}

// While it lives, the op's arguments are kept: it may be recorded.
struct Keeping {
    explicit Keeping(Recording& recording) : recording(recording) { recording.keeps = true; }
    ~Keeping() { recording.keeps = false; }
    Recording& recording;
};

// Binds an op that can be recorded. An op bound by m.def is refused while its device records.
template <class... Args, class... Extra>
void def_op(nb::module_& m, const char* name, void (*op)(Device&, Args...), const Extra&... extra) {
    const auto call = [op](Device& device, Args... arguments) {
        if (Program* const program = device.recording.program()) {
            (keep(*program, arguments), ...);
            const Keeping keeping(device.recording);
            op(device, arguments...);
        } else {
            op(device, arguments...);
        }
    };
    m.def(name, call, extra...);
}

void bind_cache(nb::module_& m);    // bindings_cache.cpp
void bind_program(nb::module_& m);  // bindings_program.cpp
void bind_roof(nb::module_& m);     // bindings_roof.cpp
void bind_sample(nb::module_& m);   // bindings_sample.cpp
void bind_weight(nb::module_& m);   // bindings_weight.cpp

}  // namespace quire
