// Residual correlation structures by name: values and derivatives.
#include "arrays.hpp"
#include "bind.hpp"
#include "lmmfast/residual/registry.hpp"

namespace lmmfast::bindings {

namespace {

using namespace py::literals;

py::dict structures() {
    py::dict out;
    for (const std::string& name : names(DistanceStructures{}))
        out[py::str(name)] = py::dict("kind"_a = "distance");
    for (const std::string& name : names(TableStructures{}))
        out[py::str(name)] = py::dict("kind"_a = "table");
    return out;
}

TableStructure existing_table(const std::string& name) {
    const TableStructure found = table_structure(name);
    require(found.table, "no residual structure of levels is called " + name);
    return found;
}

int n_params(const std::string& name, int T) {
    require(T >= 1, "T must be positive");
    if (distance_correlation(name, 0.0)) return 1;
    const int n = existing_table(name).n_params(T);
    require(n != any_number, name + " may have any number of parameters");
    return n;
}

py::tuple table(const std::string& name, int T, const MatrixArray& psi) {
    const TableStructure structure = existing_table(name);
    require(T >= 1, "T must be positive");
    const auto K = static_cast<int>(psi.size()), wanted = structure.n_params(T);
    require(psi.ndim() == 1 && (wanted == any_number ? K < T : K == wanted),
            wanted == any_number ? name + " must have fewer parameters than levels"
                                 : name + " has " + std::to_string(wanted) + " parameters");
    MatrixArray C({T, T}), dC({K, T, T});
    std::fill_n(C.mutable_data(), C.size(), 0.0);
    std::fill_n(dC.mutable_data(), dC.size(), 0.0);
    structure.table(T, K, psi.data(), C.mutable_data(), dC.mutable_data());
    return py::make_tuple(C, dC);
}

py::tuple distance(const std::string& name, const MatrixArray& d, double psi) {
    const auto structure = distance_correlation(name, psi);
    require(structure != nullptr, "no residual structure of distances is called " + name);
    require(d.ndim() == 1, "d must be one-dimensional");
    MatrixArray C(d.size()), dC(d.size());
    structure->evaluate(d.data(), d.size(), C.mutable_data(), dC.mutable_data());
    return py::make_tuple(C, dC);
}

}  // namespace

void bind_residual(py::module_& m) {
    m.def("residual_structures", &structures);
    m.def("residual_n_params", &n_params, py::arg("name"), py::arg("T"));
    m.def("residual_table", &table, py::arg("name"), py::arg("T"), py::arg("psi"));
    m.def("residual_distance", &distance, py::arg("name"), py::arg("d"), py::arg("psi"));
}

}  // namespace lmmfast::bindings
