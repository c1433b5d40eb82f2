# The micro-benchmark, built on request: cmake --build <folder> --target linear_bench
find_package(benchmark QUIET)
if(benchmark_FOUND AND NOT CMAKE_CROSSCOMPILING)
  file(GLOB peak_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/benchmarks/peaks_*.cpp)
  add_executable(linear_bench EXCLUDE_FROM_ALL csrc/benchmarks/linear_bench.cpp ${peak_sources})
  target_link_libraries(linear_bench PRIVATE medusa benchmark::benchmark)
endif()
