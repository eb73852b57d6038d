/* A PKCS#11 library that passes every call on to another one, and fails when it is told to.
 *
 * FAULTY_TOKEN_LIBRARY: the library behind it. FAULTY_TOKEN_DIR: a folder with its orders and its record:
 *   gone        while it is there, there is no token and every session is dead
 *   NAME        while it is there, the call fails with the code in it (hexadecimal); with "once" after the code,
 *               the file is taken away by the first such call, with "session" by the next session that is opened,
 *               with "library" when the library is initialised again
 *   final       while it is there, the token says that one more wrong PIN locks it
 *   calls       one line for each call of those below
 *   overlap     made when two threads are inside at the same time
 *
 * The function list of Cryptoki 2.x is a version followed by 68 pointers in a fixed order (PKCS #11 2.40 section 3.6);
 * every function returns an unsigned long and takes words, so no header is needed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*call)(word, word, word, word, word, word, word, word);
struct list {
    unsigned char version[2];
    call function[68];
};

enum { INITIALIZE = 0, SLOT_LIST = 4, TOKEN_INFO = 6, OPEN = 12, CLOSE = 13, LOGIN = 18, FIND_INIT = 26, DECRYPT_INIT = 33,
       DECRYPT = 34, SIGN_INIT = 42, SIGN = 43, DERIVE = 62, RANDOM = 64 };
enum { OK = 0, DEVICE_REMOVED = 0x32, TOKEN_NOT_PRESENT = 0xE0 };
enum { FINAL_TRY = 0x20000, FLAGS_OFFSET = 96 };

static struct list *real, faulty;
static int inside;

static void path_of(char *path, const char *name) {
    const char *folder = getenv("FAULTY_TOKEN_DIR");
    snprintf(path, 4096, "%s/%s", folder ? folder : "/nonexistent", name);
}

static int ordered(const char *name) {
    char path[4096];
    path_of(path, name);
    return access(path, F_OK) == 0;
}

static void record(const char *file, const char *line) {
    char path[4096];
    path_of(path, file);
    FILE *out = fopen(path, "a");
    if (out) {
        fprintf(out, "%s\n", line);
        fclose(out);
    }
}

static word order(const char *name) {
    char path[4096], text[64] = "";
    path_of(path, name);
    FILE *in = fopen(path, "r");
    if (!in)
        return OK;
    size_t size = fread(text, 1, sizeof text - 1, in);
    text[size] = 0;
    fclose(in);
    if (strstr(text, "once"))
        unlink(path);
    return strtoul(text, NULL, 16);
}

static void take_away(const char *until) {
    static const char *names[] = {"C_OpenSession", "C_Decrypt", "C_Sign", "C_DeriveKey"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096], text[64] = "";
        path_of(path, names[i]);
        FILE *in = fopen(path, "r");
        if (!in)
            continue;
        size_t size = fread(text, 1, sizeof text - 1, in);
        text[size] = 0;
        fclose(in);
        if (strstr(text, until))
            unlink(path);
    }
}

/* A call that fails ends its operation (PKCS #11 2.40 section 5.2), in the library behind as well. */
static void end_operation(int number, word session, word data, word size) {
    static unsigned char scratch[8192];
    word room = sizeof scratch;
    real->function[number](session, data, number == DECRYPT ? 1 : size, (word)scratch, (word)&room, 0, 0, 0);
}

static word pass(int number, const char *name, word a, word b, word c, word d, word e, word f) {
    if (__sync_add_and_fetch(&inside, 1) > 1)
        record("overlap", name);
    record("calls", name);
    word code = ordered("gone") ? (number == OPEN ? TOKEN_NOT_PRESENT : DEVICE_REMOVED) : order(name);
    if (number == OPEN)
        take_away("session");
    if (code == OK)
        code = real->function[number](a, b, c, d, e, f, 0, 0);
    else if (number == DECRYPT || number == SIGN)
        end_operation(number, a, b, c);
    __sync_sub_and_fetch(&inside, 1);
    return code;
}

#define PASS(NUMBER, NAME) \
    static word NAME(word a, word b, word c, word d, word e, word f, word g, word h) { \
        (void)g; (void)h; \
        return pass(NUMBER, #NAME, a, b, c, d, e, f); \
    }
PASS(OPEN, C_OpenSession)
PASS(CLOSE, C_CloseSession)
PASS(LOGIN, C_Login)
PASS(FIND_INIT, C_FindObjectsInit)
PASS(DECRYPT_INIT, C_DecryptInit)
PASS(DECRYPT, C_Decrypt)
PASS(SIGN_INIT, C_SignInit)
PASS(SIGN, C_Sign)
PASS(DERIVE, C_DeriveKey)
PASS(RANDOM, C_GenerateRandom)

static word C_Initialize(word arguments, word b, word c, word d, word e, word f, word g, word h) {
    take_away("library");
    return real->function[INITIALIZE](arguments, b, c, d, e, f, g, h);
}

static word C_GetSlotList(word present, word slots, word count, word d, word e, word f, word g, word h) {
    if (ordered("gone")) {
        *(word *)count = 0;
        return OK;
    }
    return real->function[SLOT_LIST](present, slots, count, d, e, f, g, h);
}

static word C_GetTokenInfo(word slot, word info, word c, word d, word e, word f, word g, word h) {
    word code = real->function[TOKEN_INFO](slot, info, c, d, e, f, g, h);
    if (code == OK && ordered("final"))
        *(word *)(info + FLAGS_OFFSET) |= FINAL_TRY;
    return code;
}

word C_GetFunctionList(struct list **found) {
    if (!real) {
        const char *library = getenv("FAULTY_TOKEN_LIBRARY");
        void *handle = library ? dlopen(library, RTLD_NOW | RTLD_LOCAL) : NULL;
        word (*get)(struct list **) = handle ? (word(*)(struct list **))dlsym(handle, "C_GetFunctionList") : NULL;
        if (!get || get(&real) != OK)
            return 5;
    }
    faulty = *real;
    faulty.function[INITIALIZE] = C_Initialize;
    faulty.function[SLOT_LIST] = C_GetSlotList;
    faulty.function[TOKEN_INFO] = C_GetTokenInfo;
    faulty.function[OPEN] = C_OpenSession;
    faulty.function[CLOSE] = C_CloseSession;
    faulty.function[LOGIN] = C_Login;
    faulty.function[FIND_INIT] = C_FindObjectsInit;
    faulty.function[DECRYPT_INIT] = C_DecryptInit;
    faulty.function[DECRYPT] = C_Decrypt;
    faulty.function[SIGN_INIT] = C_SignInit;
    faulty.function[SIGN] = C_Sign;
    faulty.function[DERIVE] = C_DeriveKey;
    faulty.function[RANDOM] = C_GenerateRandom;
    *found = &faulty;
    return OK;
}
