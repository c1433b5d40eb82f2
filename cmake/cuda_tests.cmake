# The CUDA kernels' tests, on the emulator: the backend as one library, its matrix product by the
# CPU, and one test per csrc/tests/cuda/*_test.cpp.
if(NOT COMMAND medusa_simt_test)
  return()
endif()
set(cuda_emulated ${MEDUSA_CUDA_HOST_SOURCES} ${MEDUSA_CUDA_SOURCES})
list(FILTER cuda_emulated EXCLUDE REGEX "linear_cublaslt")
medusa_simt_library(cuda_emulated ${cuda_emulated}
                    ${PROJECT_SOURCE_DIR}/csrc/tests/cuda/matrix_product.cpp)
file(GLOB cuda_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/tests/cuda/*_test.cpp)
foreach(source IN LISTS cuda_tests)
  get_filename_component(name ${source} NAME_WE)
  medusa_simt_test(cuda_${name} LIBRARY cuda_emulated SOURCES ${source})
endforeach()
# The whole decoder beside the CPU's.
foreach(variant IN LISTS MEDUSA_SIMT_VARIANTS)
  target_link_libraries(cuda_decoder_test_${variant} PRIVATE medusa)
endforeach()
