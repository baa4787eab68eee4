// Everything that contains the search, as one unit: compilers take a minute for the search alone.
#include "fit.cpp"
#include "responses.cpp"
#include "search.cpp"
#include "segments.cpp"
