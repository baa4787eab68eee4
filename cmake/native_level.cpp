// Prints the best instruction set of the machine that builds.
#include <cstdio>

#include "cpu_levels.hpp"

int main() {
    std::puts(lmmfast::cpu_levels(lmmfast::cpu_words()).back().c_str());
}
