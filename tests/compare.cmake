# tools/compare with programs that only pretend. Not a unit test: no compiler makes a difference to it.
find_program(GRADFS_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH REQUIRED)

add_test(NAME tools.compare COMMAND ${GRADFS_PYTHON} -B ${CMAKE_CURRENT_LIST_DIR}/tools/compare_test.py)
set_tests_properties(tools.compare PROPERTIES LABELS train TIMEOUT 300)
