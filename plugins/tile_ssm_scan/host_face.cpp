// The kernels of TileSSMScan as functions of this processor: the same lines, with fibers for threads (see APEX_BLOCK_ENTRY).
#include "tile_ssm_scan/kernel.cu"
