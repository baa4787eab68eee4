// Work without the GIL, stopped by signals.
#pragma once

#include <pybind11/pybind11.h>

#include "lmmfast/base/parallel.hpp"

namespace lmmfast::bindings {

namespace py = pybind11;

// Runs `work(interrupt)` without the GIL; a Python signal handler's exception comes through.
template <class Work>
void without_gil(const Work& work) {
    try {
        const py::gil_scoped_release release;
        auto interrupt = Interrupt([] {
            const py::gil_scoped_acquire gil;
            return PyErr_CheckSignals() != 0;
        });
        work(interrupt);
    } catch (const Interrupted&) {
        throw py::error_already_set();
    }
}

}  // namespace lmmfast::bindings
