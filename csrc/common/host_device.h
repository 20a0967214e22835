// NAIGN_HOST_DEVICE: functions that a CUDA kernel and the CPU both call. NAIGN_DEVICE: functions
// that are compiled for the one or for the other, by the types and functions around them.
#pragma once

#ifdef __CUDACC__
#define NAIGN_HOST_DEVICE __host__ __device__
#define NAIGN_DEVICE __device__
#else
#define NAIGN_HOST_DEVICE
#define NAIGN_DEVICE
#endif
