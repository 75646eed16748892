// DecodeNMS: one block per image chooses, decodes and suppresses. It finds the best class of the anchors itself (one launch and
// no memory beside the outputs, as TensorRT's ahead-of-time plugins ask), or takes it from a kernel with a whole GPU.
#include "decode_nms/suppress.h"

namespace apex {
namespace {

template <class T>
struct Call {
    const float *ltrb, *centres, *strides;
    int anchors, max_detections, pre_nms;
    float score, iou;
    float* boxes;
    T* best_scores;
    int64_t *labels, *ids;
};

union Shared {
    Candidates candidates;
    Suppression suppression;
};

template <class T>
__device__ void write_row(const Call<T>& call, int place, const Box& box, float score, int label, int anchor) {
    const long long at = (long long)blockIdx.x * call.max_detections + place;
    call.boxes[4 * at] = box.x1;
    call.boxes[4 * at + 1] = box.y1;
    call.boxes[4 * at + 2] = box.x2;
    call.boxes[4 * at + 3] = box.y2;
    call.best_scores[at] = As<T>::from(score);
    call.labels[at] = label;
    call.ids[at] = anchor;
}

template <class T, class Source>
__device__ void decode_nms(const Call<T>& call, const Source& source) {
    __shared__ Shared shared;
    const int self = threadIdx.x;
    const int total = choose(shared.candidates, source, call.strides, call.anchors, call.pre_nms, call.score);
    const uint64_t key = self < total ? shared.candidates.chosen[self] : 0;
    const int anchor = self < total ? anchor_of(key) : -1;
    __syncthreads();  // the suppression takes the place of the candidates
    const int label = source(anchor).label;
    Box box = {0.0f, 0.0f, 0.0f, 0.0f};
    if (self < total) {
        const long long at = (long long)blockIdx.x * call.anchors + anchor;
        box = decode_box(call.ltrb + 4 * at, call.centres + 2 * (long long)anchor, call.strides[anchor]);
    }
    shared.suppression.box[self] = box;
    shared.suppression.area[self] = area_of(box);
    shared.suppression.label[self] = label;
    __syncthreads();
    const auto give = [&](int, int place) { write_row(call, place, box, score_of(key), label, anchor); };
    const int count = suppress(shared.suppression, total, call.max_detections, call.iou, give);
    for (int i = count + self; i < call.max_detections; i += ROWS) write_row(call, i, {0.0f, 0.0f, 0.0f, 0.0f}, 0.0f, -1, -1);
}

// The best class of every anchor of all images, one thread each.
template <class T>
__device__ void find_best(const T* scores, int rows, int classes, bool wide, Best* best) {
    const long long row = (long long)blockIdx.x * THREADS + threadIdx.x;
    const Best found = Scores<T>{scores, classes, wide}(row < rows ? int(row) : -1);
    if (row < rows) best[row] = found;
}

}  // namespace
}  // namespace apex

#define IN const float *ltrb, const float *centres, const float *strides
#define SETTINGS int max_detections, int pre_nms, float score, float iou
#define OUT(T) float *boxes, T *best_scores, int64_t *labels, int64_t *ids
#define ARGUMENTS {ltrb, centres, strides, anchors, max_detections, pre_nms, score, iou, boxes, best_scores, labels, ids}
#define SCORES_OF_IMAGE(T) apex::Scores<T>{scores + (long long)blockIdx.x * anchors * classes, classes, wide != 0}
#define FOUND_OF_IMAGE apex::Found{best + (long long)blockIdx.x * anchors}

#define DECODE_NMS(NAME, T)                                                                                      \
    APEX_BLOCK_ENTRY(NAME, apex::ROWS, 1, (apex::decode_nms<T>(ARGUMENTS, SCORES_OF_IMAGE(T))), const T *scores, \
                     IN, int anchors, int classes, int wide, SETTINGS, OUT(T))
#define FIND_BEST(NAME, T)                                                                                            \
    APEX_BLOCK_ENTRY(NAME, apex::THREADS, 4, (apex::find_best<T>(scores, rows, classes, wide != 0, best)),            \
                     const T *scores, int rows, int classes, int wide, apex::Best *best)
#define FROM_BEST(NAME, T)                                                                                            \
    APEX_BLOCK_ENTRY(NAME, apex::ROWS, 1, (apex::decode_nms<T>(ARGUMENTS, FOUND_OF_IMAGE)), const apex::Best *best,   \
                     IN, int anchors, SETTINGS, OUT(T))

DECODE_NMS(apex_decode_nms_f32, float)
DECODE_NMS(apex_decode_nms_f16, apex::f16)
FIND_BEST(apex_decode_nms_best_f32, float)
FIND_BEST(apex_decode_nms_best_f16, apex::f16)
FROM_BEST(apex_decode_nms_from_best_f32, float)
FROM_BEST(apex_decode_nms_from_best_f16, apex::f16)
