/*
 * Opens Direct messages with OpenSSL's CMS functions: the peer that the gateway is measured against.
 *
 *   openssl_cms RECIPIENT_KEY RECIPIENT_CERTIFICATE NAME=MESSAGE_FILE...
 *
 * The messages are read into memory first. Then one command a line on standard input, one answer a line:
 *   run NAME REPEATS   CPU seconds of one message, the mean of so many; of several, one more comes first, untimed
 *   peak               peak resident set of this process in kB
 *   about              the version of the library
 * It ends at the end of its input. Exit status 1, with the reason on standard error, when a message is not opened.
 */
#define _GNU_SOURCE
#include <openssl/buffer.h>
#include <openssl/cms.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_MESSAGES 16

struct message {
    const char *name;
    unsigned char *data;
    size_t size;
};

static struct message messages[MAX_MESSAGES];
static int message_count;
static EVP_PKEY *key;
static X509 *certificate;

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static BIO *open_file(const char *path) {
    BIO *file = BIO_new_file(path, "rb");
    if (file == NULL) fail(path);
    return file;
}

static void load_message(char *argument) {
    char *path = strchr(argument, '=');
    if (path == NULL || message_count == MAX_MESSAGES) fail("each message is NAME=FILE");
    *path++ = '\0';
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(path);
    struct message *message = &messages[message_count++];
    message->name = argument;
    message->size = (size_t)ftell(file);
    message->data = malloc(message->size);
    rewind(file);
    if (message->data == NULL || fread(message->data, 1, message->size, file) != message->size) fail(path);
    fclose(file);
}

static const unsigned char *find(const unsigned char *from, const unsigned char *end, const char *what, size_t size) {
    const unsigned char *found = memmem(from, (size_t)(end - from), what, size);
    if (found == NULL) fail("the message is not built as expected");
    return found;
}

/* Decode base64 into a buffer that the caller frees. */
static unsigned char *decode(const unsigned char *text, size_t size, size_t *decoded) {
    unsigned char *out = malloc(size / 4 * 3 + 4);
    EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
    int written = 0, rest = 0;
    if (out == NULL || context == NULL) fail("out of memory");
    EVP_DecodeInit(context);
    if (EVP_DecodeUpdate(context, out, &written, text, (int)size) < 0 ||
        EVP_DecodeFinal(context, out + written, &rest) < 0)
        fail("base64");
    EVP_ENCODE_CTX_free(context);
    *decoded = (size_t)(written + rest);
    return out;
}

static CMS_ContentInfo *parse_base64(const unsigned char *text, size_t size) {
    size_t decoded = 0;
    unsigned char *der = decode(text, size, &decoded);
    const unsigned char *position = der;
    CMS_ContentInfo *cms = d2i_CMS_ContentInfo(NULL, &position, (long)decoded);
    if (cms == NULL) fail("CMS");
    free(der);
    return cms;
}

/* From the raw message to the verified signature: split the plaintext at the boundary that its header gives. */
static void verify(const unsigned char *plain, size_t size) {
    char delimiter[128];
    const unsigned char *end = plain + size;
    const unsigned char *boundary = find(plain, end, "boundary=\"", 10) + 10;
    const unsigned char *quote = find(boundary, end, "\"", 1);
    int length = snprintf(delimiter, sizeof delimiter, "\r\n--%.*s", (int)(quote - boundary), (const char *)boundary);
    if (length < 0 || (size_t)length >= sizeof delimiter) fail("boundary");
    const unsigned char *first = find(quote, end, delimiter, (size_t)length) + length + 2;
    const unsigned char *first_end = find(first, end, delimiter, (size_t)length);
    const unsigned char *second = find(first_end, end, "\r\n\r\n", 4) + 4;
    const unsigned char *second_end = find(second, end, delimiter + 2, (size_t)length - 2);

    CMS_ContentInfo *cms = parse_base64(second, (size_t)(second_end - second));
    BIO *signed_part = BIO_new_mem_buf(first, (int)(first_end - first));
    if (signed_part == NULL) fail("out of memory");
    if (CMS_verify(cms, NULL, NULL, signed_part, NULL, CMS_BINARY | CMS_DETACHED | CMS_NO_SIGNER_CERT_VERIFY) != 1)
        fail("CMS_verify");
    BIO_free(signed_part);
    CMS_ContentInfo_free(cms);
}

static void unwrap(const struct message *message) {
    const unsigned char *end = message->data + message->size;
    const unsigned char *body = find(message->data, end, "\r\n\r\n", 4) + 4;
    CMS_ContentInfo *cms = parse_base64(body, (size_t)(end - body));
    BIO *out = BIO_new(BIO_s_mem());
    BUF_MEM *room = BUF_MEM_new();
    unsigned char *plain = NULL;
    /* The plaintext is smaller than its base64. A buffer that need not grow is the best that OpenSSL can have. */
    if (out == NULL || room == NULL || BUF_MEM_grow(room, (size_t)(end - body) / 4 * 3) == 0) fail("out of memory");
    room->length = 0;
    BIO_set_mem_buf(out, room, BIO_CLOSE);
    if (CMS_decrypt(cms, key, certificate, NULL, out, CMS_BINARY) != 1) fail("CMS_decrypt");
    CMS_ContentInfo_free(cms);
    long size = BIO_get_mem_data(out, &plain);
    verify(plain, (size_t)size);
    BIO_free(out);
}

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void run(const char *name, int repeats) {
    for (int i = 0; i < message_count; i++) {
        if (strcmp(messages[i].name, name) != 0) continue;
        if (repeats > 1) unwrap(&messages[i]);
        double start = cpu_seconds();
        for (int n = 0; n < repeats; n++) unwrap(&messages[i]);
        printf("%.9f\n", (cpu_seconds() - start) / repeats);
        return;
    }
    fail("no message of that name");
}

static void peak(void) {
    char line[256];
    long kilobytes = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) sscanf(line, "VmHWM: %ld", &kilobytes);
    if (status != NULL) fclose(status);
    printf("%ld\n", kilobytes);
}

int main(int argc, char **argv) {
    char line[256], name[64];
    int repeats;
    if (argc < 4) fail("usage: openssl_cms KEY CERTIFICATE NAME=MESSAGE...");
    BIO *file = open_file(argv[1]);
    key = PEM_read_bio_PrivateKey(file, NULL, NULL, NULL);
    BIO_free(file);
    file = open_file(argv[2]);
    certificate = PEM_read_bio_X509(file, NULL, NULL, NULL);
    BIO_free(file);
    if (key == NULL || certificate == NULL) fail("the key or the certificate cannot be read");
    for (int i = 3; i < argc; i++) load_message(argv[i]);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "run %63s %d", name, &repeats) == 2 && repeats > 0)
            run(name, repeats);
        else if (strncmp(line, "peak", 4) == 0)
            peak();
        else if (strncmp(line, "about", 5) == 0)
            printf("%s\n", OpenSSL_version(OPENSSL_VERSION));
        else
            fail("unknown command");
        fflush(stdout);
    }
    return 0;
}
