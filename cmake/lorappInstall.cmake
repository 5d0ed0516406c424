# Install rules, the exported target and the CMake package, from the build tree as well as from an install prefix.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set_target_properties(lorapp PROPERTIES
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}  # before 1.0 a minor version may break
  INSTALL_RPATH_USE_LINK_PATH ON)  # a shared lorapp finds the LibTorch it was built with

install(TARGETS lorapp EXPORT lorappTargets)
install(DIRECTORY include/lorapp TYPE INCLUDE FILES_MATCHING PATTERN "*.hpp")
install(FILES "${PROJECT_BINARY_DIR}/include/lorapp/export.hpp" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/lorapp")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(EXPORT lorappTargets NAMESPACE lorapp:: DESTINATION "${LORAPP_CMAKE_DIR}")
export(EXPORT lorappTargets NAMESPACE lorapp:: FILE "${PROJECT_BINARY_DIR}/lorappTargets.cmake")

set(lorapp_links_curl OFF)
if(lorapp_hub AND NOT BUILD_SHARED_LIBS)
  set(lorapp_links_curl ON)
endif()
configure_package_config_file(cmake/lorappConfig.cmake.in "${PROJECT_BINARY_DIR}/lorappConfig.cmake"
  INSTALL_DESTINATION "${LORAPP_CMAKE_DIR}"
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/lorappConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
set(lorapp_finders cmake/lorappTorch.cmake cmake/lorappTorchCuda.cmake cmake/lorappSentencepiece.cmake)
install(FILES
  "${PROJECT_BINARY_DIR}/lorappConfig.cmake" "${PROJECT_BINARY_DIR}/lorappConfigVersion.cmake" ${lorapp_finders}
  DESTINATION "${LORAPP_CMAKE_DIR}")
file(COPY ${lorapp_finders} DESTINATION "${PROJECT_BINARY_DIR}")  # for find_package in the build tree
