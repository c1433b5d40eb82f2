# One executable per csrc/tests/*_test.cpp, run by ctest once per instruction set: a test skips
# what the machine lacks.
if(CMAKE_CROSSCOMPILING)
  # Debian has no GoogleTest for the target: compile its sources.
  set(INSTALL_GTEST OFF)
  set(BUILD_GMOCK OFF)
  add_subdirectory(/usr/src/googletest ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  add_library(GTest::gtest_main ALIAS gtest_main)
else()
  find_package(GTest REQUIRED)
endif()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(default_isas generic neon)
else()
  set(default_isas generic avx2 avx512)
endif()
set(MEDUSA_TEST_ISAS ${default_isas} CACHE STRING "Instruction sets that ctest runs each test on")

file(GLOB test_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/tests/*_test.cpp)
foreach(source IN LISTS test_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE medusa GTest::gtest_main)
  foreach(isa IN LISTS MEDUSA_TEST_ISAS)
    add_test(NAME ${name}.${isa} COMMAND ${name})
    set_tests_properties(${name}.${isa} PROPERTIES ENVIRONMENT MEDUSA_ISA=${isa} TIMEOUT 600)
  endforeach()
endforeach()
