/* Stands in for libnvinfer, libnvonnxparser and libnvinfer_plugin, which need more than a machine without a GPU has. The Python
 * bindings link nine entry points of them: the registry and the runtime are those of the lean runtime, which loads anywhere; a
 * builder, a refitter and a parser there are none. */
#include <dlfcn.h>
#include <stddef.h>

static void *lean(const char *name) {
    static void *library;
    if (library == NULL) library = dlopen("libnvinfer_lean.so.11", RTLD_NOW | RTLD_GLOBAL);
    return library == NULL ? NULL : dlsym(library, name);
}

void *getPluginRegistry(void) {
    void *(*real)(void) = (void *(*)(void))lean("getPluginRegistry");
    return real == NULL ? NULL : real();
}

void *getBuilderPluginRegistry(int capability) {
    (void)capability;
    return getPluginRegistry();
}

void *createInferRuntime_INTERNAL(void *logger, int version) {
    void *(*real)(void *, int) = (void *(*)(void *, int))lean("createInferRuntime_INTERNAL");
    return real == NULL ? NULL : real(logger, version);
}

void *createInferBuilder_INTERNAL(void *logger, int version) {
    (void)logger, (void)version;
    return NULL;
}

void *createInferRefitter_INTERNAL(void *engine, void *logger, int version) {
    (void)engine, (void)logger, (void)version;
    return NULL;
}

void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) {
    (void)network, (void)logger, (void)version;
    return NULL;
}

void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) {
    (void)refitter, (void)logger, (void)version;
    return NULL;
}

int getNvOnnxParserVersion(void) { return 0; }

int initLibNvInferPlugins(void *logger, const char *space) {
    (void)logger, (void)space;
    return 1;
}
