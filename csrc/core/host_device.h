// Functions that the host's compiler and the device's both compile.
#pragma once

#ifdef __CUDACC__
#define MEDUSA_HOST_DEVICE __host__ __device__
#else
#define MEDUSA_HOST_DEVICE
#endif
