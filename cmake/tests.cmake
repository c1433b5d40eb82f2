# One executable per csrc/tests/*_test.cpp, run by ctest once per instruction set: a test skips
# what the machine lacks.
if(CMAKE_CROSSCOMPILING)
  # Debian has no GoogleTest for the target: compile its sources.
  set(INSTALL_GTEST OFF)
  set(BUILD_GMOCK OFF)
  add_subdirectory(/usr/src/googletest ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  if(NOT TARGET GTest::gtest_main)  # GoogleTest before 1.11
    add_library(GTest::gtest_main ALIAS gtest_main)
  endif()
else()
  find_package(GTest REQUIRED)
endif()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(default_isas generic neon neon_dotprod)
else()
  set(default_isas generic avx2 avx2_vnni avx512)
endif()
set(MEDUSA_TEST_ISAS ${default_isas} CACHE STRING "Instruction sets that ctest runs each test on")

add_custom_target(unit_tests)
file(GLOB test_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/tests/*_test.cpp)
# QEMU's user mode aborts in a child that starts threads after a fork, with any program.
set(emulated "")
if(CMAKE_CROSSCOMPILING)
  set(emulated ";GTEST_FILTER=-ThreadPool.SurvivesFork")
endif()
foreach(source IN LISTS test_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE medusa GTest::gtest_main)
  add_dependencies(unit_tests ${name})
  foreach(isa IN LISTS MEDUSA_TEST_ISAS)
    add_test(NAME ${name}.${isa} COMMAND ${name})
    set_tests_properties(${name}.${isa} PROPERTIES ENVIRONMENT "MEDUSA_ISA=${isa}${emulated}"
                         TIMEOUT 600)
  endforeach()
endforeach()
