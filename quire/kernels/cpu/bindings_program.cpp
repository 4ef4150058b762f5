// Programs for Python: what stands between begin and end is recorded, replay runs it again.
#include "bindings.h"

namespace quire {
namespace {

// A program and its device. Python keeps the device alive for as long as the recorder (keep_alive in bind_program).
struct Recorder {
    explicit Recorder(Device& device) : device(device) {}
    ~Recorder() { end(); }

    void begin() {
        if (device.recording.is_on()) throw std::runtime_error("this Device is recording already");
        if (program.size() != 0) throw std::runtime_error("this Program is recorded already");
        device.recording.begin(program);
        is_open = true;
    }

    void end() {
        if (is_open) device.recording.end();
        is_open = false;
    }

    void replay() {
        if (is_open) throw std::runtime_error("this Program is still being recorded");
        nb::gil_scoped_release release;
        device.replay(program);
    }

    Device& device;
    Program program;
    bool is_open = false;
};

}  // namespace

void bind_program(nb::module_& m) {
    nb::class_<Recorder>(m, "Program")
        .def(nb::init<Device&>(), nb::keep_alive<1, 2>())
        .def("begin", &Recorder::begin)
        .def("end", &Recorder::end)
        .def("replay", &Recorder::replay)
        .def("__len__", [](const Recorder& recorder) { return recorder.program.size(); });
}

}  // namespace quire
