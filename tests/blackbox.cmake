# Tests that know only the built programs and the mount point, one a Python file. Mount tests run once for each data
# path (GRADFS_PASSTHROUGH). A *_test.py that is not named here fails the configure step.
find_program(GRADFS_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH REQUIRED)

function(gradfs_blackbox name folder label timeout)
  add_test(NAME ${name} COMMAND ${GRADFS_PYTHON} -B ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${folder})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT ${timeout} RUN_SERIAL ON
    ENVIRONMENT "GRADFS_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};GRADFS_PASSTHROUGH=${ARGN}")
endfunction()

set(mount_tests posix attributes persist model slots refusal config assign landing landing_death)
set(multiproc_tests architectures crash ctl faults unbounded)
set(python_tests docs files numpy torch unit)

foreach(test IN LISTS mount_tests)
  gradfs_blackbox(mount.${test}.passthrough mount/${test}_test.py mount 300 on)
  gradfs_blackbox(mount.${test}.plain mount/${test}_test.py mount 300 off)
endforeach()
foreach(test architectures crash faults)
  gradfs_blackbox(multiproc.${test}.passthrough multiproc/${test}_test.py train 300 on)
  gradfs_blackbox(multiproc.${test}.plain multiproc/${test}_test.py train 300 off)
endforeach()
foreach(test docs files numpy torch)
  gradfs_blackbox(python.${test}.passthrough python/${test}_test.py python 300 on)
  gradfs_blackbox(python.${test}.plain python/${test}_test.py python 300 off)
endforeach()
gradfs_blackbox(python.unit python/unit_test.py python 120 auto)
gradfs_blackbox(multiproc.ctl multiproc/ctl_test.py mount 300 on)
gradfs_blackbox(multiproc.unbounded multiproc/unbounded_test.py mount 300 auto)

foreach(folder mount multiproc python)
  file(GLOB found CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_LIST_DIR}/${folder}
    ${CMAKE_CURRENT_LIST_DIR}/${folder}/*_test.py)
  list(TRANSFORM found REPLACE "_test\\.py$" "")
  foreach(test IN LISTS found)
    if(NOT test IN_LIST ${folder}_tests)
      message(FATAL_ERROR "tests/${folder}/${test}_test.py is not registered in tests/blackbox.cmake")
    endif()
  endforeach()
endforeach()
