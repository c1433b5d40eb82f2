# The CUDA kernels' tests, on the emulator: the backend as one library, its matrix product by the
# CPU, and one test per csrc/tests/cuda/*_test.cpp.
if(NOT COMMAND medusa_simt_test)
  return()
endif()
set(cuda_host_sources ${MEDUSA_CUDA_HOST_SOURCES})
list(FILTER cuda_host_sources EXCLUDE REGEX "linear_cublaslt")
medusa_simt_library(cuda_emulated ${MEDUSA_CUDA_SOURCES})
foreach(variant IN LISTS MEDUSA_SIMT_VARIANTS)
  # Host files are not for the race detector, which knows no atomics of the host.
  add_library(cuda_host_${variant} OBJECT ${cuda_host_sources}
              ${PROJECT_SOURCE_DIR}/csrc/tests/cuda/matrix_product.cpp)
  set_target_properties(cuda_host_${variant} PROPERTIES CXX_VISIBILITY_PRESET default)
  target_link_libraries(cuda_host_${variant} PRIVATE simt_${variant})
  target_sources(cuda_emulated_${variant} PRIVATE $<TARGET_OBJECTS:cuda_host_${variant}>)
endforeach()

file(GLOB cuda_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/tests/cuda/*_test.cpp)
foreach(source IN LISTS cuda_tests)
  get_filename_component(name ${source} NAME_WE)
  medusa_simt_test(cuda_${name} LIBRARY cuda_emulated SOURCES ${source})
endforeach()
# Whole decoders beside the CPU's.
foreach(variant IN LISTS MEDUSA_SIMT_VARIANTS)
  foreach(test IN ITEMS decoder session_replay)
    target_link_libraries(cuda_${test}_test_${variant} PRIVATE medusa)
  endforeach()
endforeach()
