// Which of the builds of the kernels this machine can run. Asks the CPU and, for the registers that
// the operating system has to save, the OS (the compiler's run-time test reads XGETBV).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

namespace py = pybind11;

namespace {

std::vector<std::string> levels() {
    std::vector<std::string> found{"base"};
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
        found.emplace_back("v3");
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl"))
            found.emplace_back("v4");
    }
#endif
    return found;
}

}  // namespace

PYBIND11_MODULE(_cpu, m, py::mod_gil_not_used()) {
    m.doc() = "Instruction sets that this machine supports.";
    m.def("levels", &levels, "Names of the usable builds, slowest first.");
}
