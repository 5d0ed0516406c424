# Finds the system's sentencepiece library and defines the target lorapp::sentencepiece; does nothing where there is none.
# The same file is installed with the package: a static lorapp links it in the consumer's program.
if(TARGET lorapp::sentencepiece)
  return()
endif()
find_path(LORAPP_SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h)
find_library(LORAPP_SENTENCEPIECE_LIBRARY sentencepiece)
mark_as_advanced(LORAPP_SENTENCEPIECE_INCLUDE_DIR LORAPP_SENTENCEPIECE_LIBRARY)
if(LORAPP_SENTENCEPIECE_INCLUDE_DIR AND LORAPP_SENTENCEPIECE_LIBRARY)
  add_library(lorapp::sentencepiece UNKNOWN IMPORTED GLOBAL)
  set_target_properties(lorapp::sentencepiece PROPERTIES
    IMPORTED_LOCATION "${LORAPP_SENTENCEPIECE_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${LORAPP_SENTENCEPIECE_INCLUDE_DIR}")
endif()
