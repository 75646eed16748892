// The kernels of TilePack, in grids that cover the tiles exactly (launch.py). A kernel is named for the types of image and tiles,
// once where they are one. Version 1 does not read the levels.
#include "tile_pack/kernel.h"

#define SIZES int tiles, int channels, int height, int width, int tile, int halo, int run
#define SIZES_OF_PIXELS int tiles, int height, int width, int tile, int halo, int run
#define MEAN_AND_FACTOR float mean_0, float mean_1, float mean_2, float factor_0, float factor_1, float factor_2

#define PACK(In, Out, SCALE) \
    (apex::pack_thread<In, Out>(block, thread, image, ids, {tiles, channels, height, width, tile, halo, run}, SCALE, out))
#define PACK_PIXELS(Out, SCALE)                                                                     \
    (apex::pack_pixels_thread<Out>(block, thread, image, ids, {tiles, 3, height, width, tile, halo, run}, \
                                   {{mean_0, mean_1, mean_2}, {factor_0, factor_1, factor_2}}, SCALE, out))

#define CONVERTED(NAME, In, Out) APEX_ENTRY(NAME, PACK(In, Out, 1.0f), const In *image, const int64_t *ids, const int64_t *, SIZES, Out *out)
#define SCALED(NAME, In, Out) \
    APEX_ENTRY(NAME, PACK(In, Out, scale), const In *image, const int64_t *ids, const int64_t *, SIZES, float scale, Out *out)
#define PIXELS(NAME, Out)                                                                                              \
    APEX_ENTRY(NAME, PACK_PIXELS(Out, 1.0f), const uint8_t *image, const int64_t *ids, const int64_t *, SIZES_OF_PIXELS, \
               MEAN_AND_FACTOR, Out *out)
#define SCALED_PIXELS(NAME, Out)                                                                                        \
    APEX_ENTRY(NAME, PACK_PIXELS(Out, scale), const uint8_t *image, const int64_t *ids, const int64_t *, SIZES_OF_PIXELS, \
               MEAN_AND_FACTOR, float scale, Out *out)

CONVERTED(apex_tile_pack_f32, float, float)
CONVERTED(apex_tile_pack_f16, apex::f16, apex::f16)
CONVERTED(apex_tile_pack_bf16, apex::bf16, apex::bf16)
CONVERTED(apex_tile_pack_f32_f16, float, apex::f16)
SCALED(apex_tile_pack_f32_e4m3, float, apex::e4m3)
SCALED(apex_tile_pack_f16_e4m3, apex::f16, apex::e4m3)
PIXELS(apex_tile_pack_u8_f32, float)
PIXELS(apex_tile_pack_u8_f16, apex::f16)
PIXELS(apex_tile_pack_u8_bf16, apex::bf16)
SCALED_PIXELS(apex_tile_pack_u8_e4m3, apex::e4m3)
