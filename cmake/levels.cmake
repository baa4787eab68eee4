# Which instruction sets to build the kernels for: sets `levels`, from the variable LMMFAST_LEVELS,
# or the environment variable of that name, which wins (build trees outlive an environment).
# "native": the best of the machine that builds; "all": those of a wheel; or a list of base, v3, v4.
set(LMMFAST_LEVELS native CACHE STRING "Instruction sets to build for: native, all, or of base;v3;v4")
set(levels ${LMMFAST_LEVELS})
if(DEFINED ENV{LMMFAST_LEVELS})
  string(REPLACE "," ";" levels "$ENV{LMMFAST_LEVELS}")
endif()

if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(levels base)
elseif(levels STREQUAL "all")
  set(levels base v3 v4)
elseif(levels STREQUAL "native")
  set(levels base)  # cross-compiling: what every machine runs
  if(NOT CMAKE_CROSSCOMPILING)
    # Asked anew each time: a build tree may have come from another machine.
    unset(native_runs CACHE)
    unset(native_compiles CACHE)
    try_run(native_runs native_compiles ${PROJECT_BINARY_DIR}/native_level
            ${PROJECT_SOURCE_DIR}/cmake/native_level.cpp
            CMAKE_FLAGS -DINCLUDE_DIRECTORIES=${PROJECT_SOURCE_DIR}/cpp/bindings
            RUN_OUTPUT_VARIABLE native_level)
    if(native_compiles AND native_runs EQUAL 0)
      string(STRIP "${native_level}" levels)
    endif()
  endif()
endif()
foreach(level ${levels})
  if(NOT level MATCHES "^(base|v3|v4)$")
    message(FATAL_ERROR "LMMFAST_LEVELS=${levels}: choose native, all, or some of base, v3, v4")
  endif()
endforeach()
message(STATUS "lmmfast: instruction sets ${levels}")
