# lorapp_use_torch_pch(target): compiles an executable of this project with the one precompiled <torch/torch.h>.
# A compiler takes it only where the flags agree, -fPIE among them; so it serves executables, not libraries.
if(CMAKE_CXX_COMPILER_LAUNCHER AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-fpch-preprocess)  # lets a compiler cache see into files that use a precompiled header
endif()
file(GENERATE OUTPUT "${PROJECT_BINARY_DIR}/lorapp_torch_pch.cpp"
  CONTENT "// The object file that the precompiled header belongs to.\n")
add_library(lorapp_torch_pch OBJECT EXCLUDE_FROM_ALL "${PROJECT_BINARY_DIR}/lorapp_torch_pch.cpp")
target_link_libraries(lorapp_torch_pch PRIVATE lorapp::lorapp)
lorapp_setup_target(lorapp_torch_pch)
set_target_properties(lorapp_torch_pch PROPERTIES POSITION_INDEPENDENT_CODE OFF)
target_precompile_headers(lorapp_torch_pch PRIVATE <torch/torch.h>)

function(lorapp_use_torch_pch target)
  target_precompile_headers(${target} REUSE_FROM lorapp_torch_pch)
endfunction()
