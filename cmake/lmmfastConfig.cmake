include(CMakeFindDependencyMacro)
find_dependency(Threads)
# The PyPI package cmeel-eigen keeps its CMake config one level below site-packages.
find_dependency(Eigen3 3.4 CONFIG PATH_SUFFIXES cmeel.prefix/share/eigen3/cmake)
include(${CMAKE_CURRENT_LIST_DIR}/lmmfastTargets.cmake)
