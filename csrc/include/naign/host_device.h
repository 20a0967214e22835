// Functions that a CUDA kernel and the CPU both call.
#pragma once

#ifdef __CUDACC__
#define NAIGN_HOST_DEVICE __host__ __device__
#else
#define NAIGN_HOST_DEVICE
#endif
