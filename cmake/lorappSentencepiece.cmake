# Finds the system's sentencepiece library and defines the target lorapp::sentencepiece, and lorapp::sentencepiece_train
# where its trainer is there too (tests and examples use it); does nothing where there is none.
# The same file is installed with the package: a static lorapp links the first one in the consumer's program.
if(TARGET lorapp::sentencepiece)
  return()
endif()
find_path(LORAPP_SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h)
mark_as_advanced(LORAPP_SENTENCEPIECE_INCLUDE_DIR)
foreach(part "" _train)
  string(TOUPPER "${part}" part_upper)
  find_library(LORAPP_SENTENCEPIECE${part_upper}_LIBRARY sentencepiece${part})
  mark_as_advanced(LORAPP_SENTENCEPIECE${part_upper}_LIBRARY)
  if(LORAPP_SENTENCEPIECE_INCLUDE_DIR AND LORAPP_SENTENCEPIECE${part_upper}_LIBRARY)
    add_library(lorapp::sentencepiece${part} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(lorapp::sentencepiece${part} PROPERTIES
      IMPORTED_LOCATION "${LORAPP_SENTENCEPIECE${part_upper}_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${LORAPP_SENTENCEPIECE_INCLUDE_DIR}")
  endif()
endforeach()
