# Precompiled headers: most of the time of a compile is LibTorch's text, the same in every file.
# Flags must agree between a header and the files that use it, so the library, its programs and its tests have one each.
if(CMAKE_CXX_COMPILER_LAUNCHER AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-fpch-preprocess)  # lets a compiler cache see into files that use a precompiled header
endif()

# lorapp_add_pch(name HEADERS … [LIBRARIES …] [OPTIONS …]): an object library that holds one precompiled header.
function(lorapp_add_pch name)
  cmake_parse_arguments(arg "" "" "HEADERS;LIBRARIES;OPTIONS" ${ARGN})
  file(GENERATE OUTPUT "${PROJECT_BINARY_DIR}/${name}.cpp"
    CONTENT "// The object file that the precompiled header belongs to.\n")
  add_library(${name} OBJECT EXCLUDE_FROM_ALL "${PROJECT_BINARY_DIR}/${name}.cpp")
  target_link_libraries(${name} PRIVATE lorapp::lorapp ${arg_LIBRARIES})
  target_compile_options(${name} PRIVATE ${arg_OPTIONS})
  lorapp_setup_target(${name})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_precompile_headers(${name} PRIVATE ${arg_HEADERS})
endfunction()

# The library: what nearly every file of src/ includes.
target_precompile_headers(lorapp PRIVATE <torch/nn/module.h> <torch/types.h>)

# lorapp_use_torch_pch(target): a program of this project, compiled with the one precompiled <torch/torch.h>.
lorapp_add_pch(lorapp_torch_pch HEADERS <torch/torch.h>)
function(lorapp_use_torch_pch target)
  target_precompile_headers(${target} REUSE_FROM lorapp_torch_pch)
endfunction()
