# lorapp_add_isa_runs(<room>): the room's whole suite again with LORAPP_FORCE_ISA set to each instruction
# set of the build, as tests "isa: <room> <set>" with the label isa. A set that this CPU lacks is reported
# as skipped, and a run in which no kernel of the set was called fails. For every room that reaches the kernels: data, train
# and generate do not by themselves, golden covers what they do with a 4-bit model.
function(lorapp_add_isa_runs room)
  foreach(isa IN LISTS lorapp_isas)
    set(name "isa: ${room} ${isa}")
    add_test(NAME "${name}" COMMAND "${CMAKE_COMMAND}"
      -DISA=${isa} -DPROBE=$<TARGET_FILE:lorapp_test_isa_probe> -DSUITE=$<TARGET_FILE:lorapp_test_${room}>
      -P "${PROJECT_SOURCE_DIR}/tests/support/run_with_isa.cmake")
    set_tests_properties("${name}" PROPERTIES
      LABELS isa TIMEOUT 3600 SKIP_REGULAR_EXPRESSION "skipped: this CPU does not have")
  endforeach()
endfunction()
