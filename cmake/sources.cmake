# Reads csrc/sources.txt into MEDUSA_LIBRARY_SOURCES (core, cpu, model and engine: no torch) and
# MEDUSA_CUDA_SOURCES (the kernels) and MEDUSA_CUDA_HOST_SOURCES (the .cpp files beside them), as
# absolute paths.
set(source_list ${PROJECT_SOURCE_DIR}/csrc/sources.txt)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source_list})
file(STRINGS ${source_list} listed_sources REGEX "^[^#]")
list(TRANSFORM listed_sources STRIP)
list(TRANSFORM listed_sources PREPEND ${PROJECT_SOURCE_DIR}/csrc/)

set(MEDUSA_LIBRARY_SOURCES ${listed_sources})
list(FILTER MEDUSA_LIBRARY_SOURCES INCLUDE REGEX "/csrc/(core|cpu|model|engine)/")
set(MEDUSA_CUDA_SOURCES ${listed_sources})
list(FILTER MEDUSA_CUDA_SOURCES INCLUDE REGEX "/csrc/cuda/.*\\.cu$")
set(MEDUSA_CUDA_HOST_SOURCES ${listed_sources})
list(FILTER MEDUSA_CUDA_HOST_SOURCES INCLUDE REGEX "/csrc/cuda/.*\\.cpp$")

# A file that was forgotten in the list would only show as an undefined symbol.
file(GLOB_RECURSE found_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/*.cpp
     ${PROJECT_SOURCE_DIR}/csrc/*.cu)
list(FILTER found_sources EXCLUDE REGEX "/csrc/(tests|benchmarks)/")
list(REMOVE_ITEM found_sources "" ${listed_sources})
foreach(source IN LISTS found_sources)
  message(WARNING "${source} is not in csrc/sources.txt")
endforeach()
