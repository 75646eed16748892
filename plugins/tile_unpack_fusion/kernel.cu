// The kernels of TileUnpackFusion, in grids that cover the chosen tiles exactly (launch.py). Version 1 does not read the levels.
#include "tile_unpack_fusion/kernel.h"
#include "tile_unpack_fusion/whole.h"

#define UNPACK(NAME, T)                                                                                                           \
    APEX_ENTRY(NAME, (apex::unpack_thread<T>(block, thread, base, tiles, ids, alpha, {count, channels, height, width, cells, run}, out)), \
               const T *base, const T *tiles, const int64_t *ids, const int64_t *, const T *alpha, int count, int channels,      \
               int height, int width, int cells, int run, T *out)

UNPACK(apex_tile_unpack_fusion_f32, float)
UNPACK(apex_tile_unpack_fusion_f16, apex::f16)
UNPACK(apex_tile_unpack_fusion_bf16, apex::bf16)

// The same with all of the map, in grids that cover all of it.
#define WHOLE(NAME, T)                                                                                                           \
    APEX_ENTRY(NAME, (apex::whole_thread<T>(block, thread, base, tiles, ids, alpha, {count, channels, height, width, cells, run}, out)), \
               const T *base, const T *tiles, const int64_t *ids, const int64_t *, const T *alpha, int count, int channels,      \
               int height, int width, int cells, int run, T *out)

WHOLE(apex_tile_unpack_fusion_whole_f32, float)
WHOLE(apex_tile_unpack_fusion_whole_f16, apex::f16)
WHOLE(apex_tile_unpack_fusion_whole_bf16, apex::bf16)
