# pip builds in an environment of its own, at another path each time: with the headers of pybind11 and
# Eigen taken from there, nothing of an earlier build could be used again. They are copied into the
# build tree, where they have the same path, and the same time as long as they are the same.
function(lmmfast_stable_headers target name)
  get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  set(copies)
  set(k 0)
  foreach(folder ${folders})
    set(copy ${PROJECT_BINARY_DIR}/headers/${name}${k})
    file(GLOB_RECURSE headers RELATIVE ${folder} ${folder}/${ARGN}/*)
    foreach(header ${headers})
      get_filename_component(parent ${header} DIRECTORY)
      file(MAKE_DIRECTORY ${copy}/${parent})
      file(COPY_FILE ${folder}/${header} ${copy}/${header} ONLY_IF_DIFFERENT)
    endforeach()
    list(APPEND copies ${copy})
    math(EXPR k "${k} + 1")
  endforeach()
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${copies}"
                        INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${copies}")
endfunction()
