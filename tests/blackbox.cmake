# Tests of the real programs, through a real mount, on both data paths.

# gradfs_blackbox_test(FOLDER NAME LABEL): tests/FOLDER/NAME_test.py with passthrough and without.
function(gradfs_blackbox_test folder name label)
  foreach(path on off)
    if(path STREQUAL on)
      set(test ${folder}.${name}.passthrough)
    else()
      set(test ${folder}.${name}.plain)
    endif()
    add_test(NAME ${test} COMMAND /usr/bin/python3 ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/${name}_test.py)
    set_tests_properties(${test} PROPERTIES LABELS ${label} TIMEOUT 400 RUN_SERIAL ON
      ENVIRONMENT "GRADFS_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};GRADFS_PASSTHROUGH=${path}")
  endforeach()
endfunction()

file(GLOB mount_tests CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/mount mount/*_test.py)
foreach(file ${mount_tests})
  string(REPLACE "_test.py" "" name ${file})
  gradfs_blackbox_test(mount ${name} mount)
endforeach()
file(GLOB process_tests CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/multiproc multiproc/*_test.py)
foreach(file ${process_tests})
  string(REPLACE "_test.py" "" name ${file})
  gradfs_blackbox_test(multiproc ${name} train)
endforeach()
