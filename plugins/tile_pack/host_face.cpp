// The kernels of TilePack as functions of this processor: the same lines, block after block (see APEX_ENTRY).
#include "tile_pack/kernel.cu"
