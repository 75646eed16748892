// The kernels of DecodeNMS as functions of this processor: the same lines, with fibers for threads (see APEX_BLOCK_ENTRY).
#include "decode_nms/kernel.cu"
