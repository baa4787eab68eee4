// Terms as Python names them, and the end of a search as a dict.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "lmmfast/search/resumable_search.hpp"

namespace lmmfast::bindings {

using TermList = std::vector<std::pair<std::string, int>>;  // structure, columns of Z

std::vector<RandomTerm> random_terms(const TermList& terms);

// None where the search could not begin.
py::object optimum_or_none(const Optimum& found);

inline MatrixArray array(const Vector& x) {
    return MatrixArray(static_cast<py::ssize_t>(x.size()), x.data());
}
inline MatrixArray array(const RowMatrix& A) {
    return MatrixArray({static_cast<py::ssize_t>(A.rows()), static_cast<py::ssize_t>(A.cols())}, A.data());
}

}  // namespace lmmfast::bindings
