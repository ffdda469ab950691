# The rules of the house as tests, and the tests of those rules.
find_program(GRADFS_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH REQUIRED)

add_test(NAME tidy.rules COMMAND ${GRADFS_PYTHON} -B ${PROJECT_SOURCE_DIR}/tools/tidy)
add_test(NAME tidy.selftest COMMAND ${GRADFS_PYTHON} -B ${CMAKE_CURRENT_LIST_DIR}/tidy/rules_test.py)
set_tests_properties(tidy.rules tidy.selftest PROPERTIES LABELS tidy TIMEOUT 120)

# clang-query understands the commands of clang alone.
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  add_test(NAME tidy.co_await
    COMMAND ${GRADFS_PYTHON} -B ${PROJECT_SOURCE_DIR}/tools/tidy co-await ${PROJECT_BINARY_DIR})
  set_tests_properties(tidy.co_await PROPERTIES LABELS tidy TIMEOUT 900 PROCESSORS 2)
endif()
