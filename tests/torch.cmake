# The built-in rules against PyTorch (Debian's python3-torch), bit for bit.
add_executable(descent_dump coproc/dump.cc)
target_link_libraries(descent_dump PRIVATE gradfs_flags gradfs_descent)
add_test(NAME coproc.torch
  COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/coproc/torch_test.py $<TARGET_FILE:descent_dump>)
set_tests_properties(coproc.torch PROPERTIES LABELS torch TIMEOUT 120)
