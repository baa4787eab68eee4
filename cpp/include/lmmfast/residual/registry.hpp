// The residual correlation structures there are: a new one is its header and a line here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lmmfast/residual/antedependence.hpp"
#include "lmmfast/residual/ar1.hpp"
#include "lmmfast/residual/arma11.hpp"
#include "lmmfast/residual/banded_toeplitz.hpp"
#include "lmmfast/residual/compound_symmetry.hpp"
#include "lmmfast/residual/exponential.hpp"
#include "lmmfast/residual/gaussian.hpp"
#include "lmmfast/residual/linear.hpp"
#include "lmmfast/residual/matern32.hpp"
#include "lmmfast/residual/matern52.hpp"
#include "lmmfast/residual/rational_quadratic.hpp"
#include "lmmfast/residual/spherical.hpp"
#include "lmmfast/residual/toeplitz.hpp"
#include "lmmfast/residual/unstructured.hpp"

namespace lmmfast {

template <class... Structures>
struct StructureList {};

using DistanceStructures = StructureList<  //
    Ar1,                                   //
    Exponential,                           //
    Gaussian,                              //
    Linear,                                //
    Matern32,                              //
    Matern52,                              //
    RationalQuadratic,                     //
    Spherical>;

using TableStructures = StructureList<  //
    Arma11,                             //
    CompoundSymmetry,                   //
    Toeplitz,                           //
    BandedToeplitz,                     //
    Antedependence,                     //
    UnstructuredCorrelation>;

// The functions of a table structure.
struct TableStructure {
    int (*n_params)(int T) = nullptr;
    void (*table)(int T, int n_params, const double* psi, double* C, double* dC) = nullptr;
};

template <class... Structures>
std::vector<std::string> names(StructureList<Structures...>) {
    return {Structures::name...};
}

namespace detail {

// Null where there is none of this name.
template <class... Structures>
std::unique_ptr<DistanceCorrelation> make(StructureList<Structures...>, const std::string& name, double psi) {
    std::unique_ptr<DistanceCorrelation> found;
    ((name == Structures::name ? void(found = std::make_unique<DistanceCorrelationOf<Structures>>(psi))
                               : void()),
     ...);
    return found;
}

template <class... Structures>
TableStructure find(StructureList<Structures...>, const std::string& name) {
    TableStructure found;
    ((name == Structures::name ? void(found = {&Structures::n_params, &Structures::table}) : void()), ...);
    return found;
}

}  // namespace detail

// Null where no distance structure has this name.
inline std::unique_ptr<DistanceCorrelation> distance_correlation(const std::string& name, double psi) {
    return detail::make(DistanceStructures{}, name, psi);
}

// Null functions where no table structure has this name.
inline TableStructure table_structure(const std::string& name) {
    return detail::find(TableStructures{}, name);
}

}  // namespace lmmfast
