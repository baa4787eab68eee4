// The extension module: one build per instruction set, see CMakeLists.txt.
#include "bind.hpp"
#include "lmmfast/base/lanes.hpp"

PYBIND11_MODULE(LMMFAST_MODULE, m, pybind11::mod_gil_not_used()) {
    m.doc() = "Kernels of lmmfast: compress rows, evaluate totals, search, fit, predict random effects.";
    m.attr("lanes") = lmmfast::lanes;
    m.attr("max_q") = lmmfast::max_q;
    lmmfast::bindings::bind_fingerprint(m);
    lmmfast::bindings::bind_grouping(m);
    lmmfast::bindings::bind_packing(m);
    lmmfast::bindings::bind_moments(m);
    lmmfast::bindings::bind_markov(m);
    lmmfast::bindings::bind_responses(m);
    lmmfast::bindings::bind_search(m);
    lmmfast::bindings::bind_fit(m);
    lmmfast::bindings::bind_segments(m);
    lmmfast::bindings::bind_residual(m);
    lmmfast::bindings::bind_dense(m);
    lmmfast::bindings::bind_nested(m);
    lmmfast::bindings::bind_crossed(m);
}
