# The SIMT emulator: kernel files compiled by the host compiler and run on a CPU, in three variants
# (README.md in csrc/tests/simt).
#   medusa_simt_library(<name> <kernel .cu files>)            makes <name>_<variant>
#   medusa_simt_test(<name> LIBRARY <library> SOURCES <...>)  makes test <name>_<variant>, each linked
#                                                             with <library>_<variant> and GoogleTest
if(MEDUSA_SANITIZE OR CMAKE_CROSSCOMPILING)
  return()  # the variants bring their own sanitizers; fibers know x86-64 and ucontext natively
endif()
find_package(GTest REQUIRED)
find_package(Threads REQUIRED)

set(MEDUSA_SIMT_VARIANTS plain address race)
get_filename_component(simt_dir ${CMAKE_CURRENT_LIST_DIR}/../csrc/tests/simt ABSOLUTE)
get_filename_component(simt_csrc ${simt_dir}/../.. ABSOLUTE)
file(GLOB simt_engine_sources CONFIGURE_DEPENDS ${simt_dir}/*.cpp)
list(FILTER simt_engine_sources EXCLUDE REGEX "_test\\.cpp$")

set(simt_sanitizers address,bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero)
set(simt_flags_plain)
set(simt_flags_address -fsanitize=${simt_sanitizers} -fno-sanitize-recover=all
                       -fno-omit-frame-pointer)
set(simt_flags_race)
# memcpy and memset stay calls, so that the detector sees them.
set(simt_kernel_flags_race -fsanitize=thread --param=tsan-instrument-func-entry-exit=0
                           -fno-builtin-memcpy -fno-builtin-memset)

foreach(variant IN LISTS MEDUSA_SIMT_VARIANTS)
  add_library(simt_${variant} SHARED ${simt_engine_sources})
  target_include_directories(simt_${variant} BEFORE PUBLIC ${simt_dir} ${simt_csrc})
  target_compile_features(simt_${variant} PUBLIC cxx_std_17)
  set_target_properties(simt_${variant} PROPERTIES CXX_VISIBILITY_PRESET default)
  # Reports name source lines (-g1); the unknown pragmas are nvcc's; no wrapper around each
  # access to shared memory (-fno-extern-tls-init); kernels reinterpret memory freely.
  target_compile_options(simt_${variant} PUBLIC
    -O2 -g1 -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off -fno-extern-tls-init
    -fno-strict-aliasing ${simt_flags_${variant}})
  target_link_options(simt_${variant} PUBLIC ${simt_flags_${variant}})
  target_link_libraries(simt_${variant} PUBLIC Threads::Threads PRIVATE ${CMAKE_DL_LIBS})
endforeach()
target_compile_definitions(simt_race PRIVATE SIMT_RACE)
# Its addresses are checked by hand, and mma would take five times as long.
set_source_files_properties(${simt_dir}/warp_ops.cpp PROPERTIES COMPILE_OPTIONS
  "$<$<STREQUAL:$<TARGET_PROPERTY:NAME>,simt_address>:-fno-sanitize=all>")

function(medusa_simt_library name)
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX)
  foreach(variant IN LISTS MEDUSA_SIMT_VARIANTS)
    # A library of its own: its thread-local segment is the kernels' shared memory, nothing else.
    set(target ${name}_${variant})
    add_library(${target} SHARED ${ARGN})
    set_target_properties(${target} PROPERTIES CXX_VISIBILITY_PRESET default)
    target_compile_options(${target} PRIVATE -x c++ -falign-functions=16
                                             ${simt_kernel_flags_${variant}})
    target_link_libraries(${target} PUBLIC simt_${variant})
  endforeach()
  target_link_options(${name}_race PRIVATE LINKER:--wrap=memcpy,--wrap=memset)
endfunction()

function(medusa_simt_test name)
  cmake_parse_arguments(arg "" "LIBRARY" "SOURCES" ${ARGN})
  foreach(variant IN LISTS MEDUSA_SIMT_VARIANTS)
    string(TOUPPER SIMT_VARIANT_${variant} definition)
    set(target ${name}_${variant})
    add_executable(${target} ${arg_SOURCES})
    target_compile_definitions(${target} PRIVATE ${definition})
    target_link_libraries(${target} PRIVATE ${arg_LIBRARY}_${variant} GTest::gtest_main)
    add_test(NAME ${target} COMMAND ${target})
    set_tests_properties(${target} PROPERTIES TIMEOUT 600 LABELS simt)
  endforeach()
endfunction()

medusa_simt_library(simt_test_kernels ${simt_dir}/testing/good_kernels.cu
                                      ${simt_dir}/testing/faulty_kernels.cu
                                      ${simt_dir}/testing/instruction_kernels.cu)
foreach(test IN ITEMS schedule fault graph instruction)
  medusa_simt_test(simt_${test}_test LIBRARY simt_test_kernels
                   SOURCES ${simt_dir}/${test}_test.cpp)
endforeach()
