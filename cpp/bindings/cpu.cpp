// Tells Python which of the builds of the kernels this machine can run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu_levels.hpp"

PYBIND11_MODULE(_cpu, m, pybind11::mod_gil_not_used()) {
    m.doc() = "Instruction sets that this machine supports.";
    m.def(
        "levels", [] { return lmmfast::cpu_levels(lmmfast::cpu_words()); },
        "Names of the usable builds, slowest first.");
}
