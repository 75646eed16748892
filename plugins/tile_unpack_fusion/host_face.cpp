// The kernels of TileUnpackFusion as functions of this processor: the same lines, block after block (see APEX_ENTRY).
#include "tile_unpack_fusion/kernel.cu"
