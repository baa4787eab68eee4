// The parts of the extension module, a file each.
#pragma once

#include <pybind11/pybind11.h>

namespace lmmfast::bindings {

void bind_fingerprint(pybind11::module_& m);
void bind_grouping(pybind11::module_& m);
void bind_packing(pybind11::module_& m);
void bind_moments(pybind11::module_& m);
void bind_markov(pybind11::module_& m);
void bind_responses(pybind11::module_& m);
void bind_search(pybind11::module_& m);
void bind_fit(pybind11::module_& m);
void bind_segments(pybind11::module_& m);
void bind_residual(pybind11::module_& m);
void bind_dense(pybind11::module_& m);
void bind_nested(pybind11::module_& m);
void bind_crossed(pybind11::module_& m);

}  // namespace lmmfast::bindings
