# Target cuda_check: nvcc compiles every kernel for every architecture we name, warnings being
# errors. It needs no device and no CUDA torch, since the kernels include no torch header.
find_program(MEDUSA_NVCC nvcc HINTS /usr/local/cuda/bin)
if(NOT MEDUSA_NVCC)
  return()
endif()
set(gencode)
foreach(arch IN ITEMS 80 86 89 90 100 120)
  list(APPEND gencode -gencode=arch=compute_${arch},code=sm_${arch})
endforeach()
list(APPEND gencode -gencode=arch=compute_120,code=compute_120)

set(cuda_objects)
foreach(source IN LISTS MEDUSA_CUDA_SOURCES)
  file(RELATIVE_PATH name ${PROJECT_SOURCE_DIR}/csrc ${source})
  string(REPLACE "/" "." name ${name})
  set(object ${PROJECT_BINARY_DIR}/cuda_check/${name}.o)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${MEDUSA_NVCC} -std=c++17 -O3 ${gencode} -Werror all-warnings
            -Xcompiler -Wall,-Wextra -I${PROJECT_SOURCE_DIR}/csrc
            -MD -MF ${object}.d -c ${source} -o ${object}
    DEPENDS ${source}
    DEPFILE ${object}.d
    COMMENT "nvcc ${name}"
    VERBATIM)
  list(APPEND cuda_objects ${object})
endforeach()
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/cuda_check)
add_custom_target(cuda_check DEPENDS ${cuda_objects})

# The backend's host code, against the toolkit's own headers.
find_path(MEDUSA_CUDA_INCLUDE cuda_runtime.h HINTS /usr/local/cuda/include)
find_path(MEDUSA_CUBLAS_INCLUDE cublasLt.h HINTS ${MEDUSA_CUDA_INCLUDE})
set(cuda_host_sources ${MEDUSA_CUDA_HOST_SOURCES})
if(NOT MEDUSA_CUBLAS_INCLUDE)
  # Some toolkits come without cuBLAS; whoever has a CUDA torch has its headers.
  list(FILTER cuda_host_sources EXCLUDE REGEX "cublas")
endif()
if(MEDUSA_CUDA_INCLUDE AND cuda_host_sources)
  add_library(cuda_host_check OBJECT EXCLUDE_FROM_ALL ${cuda_host_sources})
  target_link_libraries(cuda_host_check PRIVATE medusa_options)
  target_include_directories(cuda_host_check SYSTEM PRIVATE ${MEDUSA_CUDA_INCLUDE})
  add_dependencies(cuda_check cuda_host_check)
endif()
