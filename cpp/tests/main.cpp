// Runs the tests of a program that are named, or all.
#include <cstring>

#include "check.hpp"

int main(int n_arguments, char** arguments) {
    int n_run = 0;
    for (const auto& [name, test] : lmmfast::testing::registered())
        if (n_arguments == 1 || std::strcmp(name, arguments[1]) == 0) {
            test();
            ++n_run;
        }
    CHECK(n_run > 0);
}
