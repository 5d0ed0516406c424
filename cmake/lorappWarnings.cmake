# lorapp_setup_target(target): what every target compiled in this project shares.
function(lorapp_setup_target target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  get_target_property(type ${target} TYPE)
  if(NOT type STREQUAL "EXECUTABLE")
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endif()
  # For C++: nvcc has other options.
  set(cxx $<COMPILE_LANGUAGE:CXX>)
  target_compile_options(${target} PRIVATE
    "$<${cxx}:-Wall;-Wextra;-Wshadow;-Wnon-virtual-dtor>"
    # GCC 12 sees overlaps, overflows and wrong bounds in std::string that are not there (GCC bugs 105329, 105651).
    "$<$<AND:${cxx},$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-array-bounds;-Wno-restrict;-Wno-stringop-overflow>"
    $<$<AND:${cxx},$<BOOL:${LORAPP_WERROR}>>:-Werror>)
  if(LORAPP_SANITIZE)
    target_compile_options(${target} PRIVATE "$<${cxx}:-fsanitize=${LORAPP_SANITIZE};-fno-omit-frame-pointer;-g>")
    target_link_options(${target} PUBLIC $<BUILD_INTERFACE:-fsanitize=${LORAPP_SANITIZE}>)
  endif()
endfunction()

