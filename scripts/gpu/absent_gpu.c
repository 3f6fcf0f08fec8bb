/* A GPU to be asked about where there is none: as much of NVML and of CUDA's driver as vLLM and its compiled operators
   need to be imported and configured. Both libraries are made of this file. Every call of the driver fails. */
#include <string.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };

typedef struct { unsigned long long total, free, used; } memory_info;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_info_v2;

static const unsigned long long TOTAL = 141ull << 30;
static int device;

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
int nvmlInit(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return "no error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = &device; return SUCCESS; }
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) { *major = 9; *minor = 0; return SUCCESS; }
int nvmlDeviceGetName(void *handle, char *name, unsigned length) { strncpy(name, "NVIDIA H200", length); return SUCCESS; }
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) { strncpy(uuid, "GPU-0", length); return SUCCESS; }
int nvmlDeviceGetMemoryInfo(void *handle, memory_info *memory) {
    memory->total = memory->free = TOTAL;
    memory->used = 0;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_info_v2 *memory) {
    memory->total = memory->free = TOTAL;
    memory->reserved = memory->used = 0;
    return SUCCESS;
}

int cuInit(unsigned flags) { return NO_DEVICE; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuGetProcAddress(void) { return NO_DEVICE; }
int cuGetProcAddress_v2(void) { return NO_DEVICE; }
int cuPointerGetAttribute(void) { return NO_DEVICE; }
int cuTensorMapEncodeTiled(void) { return NO_DEVICE; }
