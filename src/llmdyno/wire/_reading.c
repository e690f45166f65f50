/* Reading many connections in one go: what wire/poller.py and wire/inbox.py do, without Python between reads.

   A read of a stream costs the interpreter about as much as the kernel: a dozen objects, most of
   them thrown away at once, the rest kept until the response ends, by when they have left the
   cache. Here a look at all connections is one call. What was read goes into one buffer a
   connection, with the kernel's stamp and the place where each read ends, and becomes Python
   objects when the response is read. Which reads are parsed at once is decided as wire/inbox.py
   decides it; tests/wire/test_inbox.py holds the two against each other.

   Two things are only shortcuts, taken where the bytes are exactly as expected:
   - The chunks of a body: where they are not found here, the HTTP parser reads them. Of what is
     found, the same test shows that the parser reads it alike. wire/inbox.py never looks for them.
   - Events that differ in their text alone: wire/runs.py looks for them in another way, and either
     may find fewer than the other. Where both find any, they find the same texts
     (tests/wire/test_runs.py). What is not found is read one by one.

   Built where there is a C compiler (hatch_build.py); everything works without it. Only the stable
   ABI of CPython 3.11 is used. One thread uses a given inbox. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#define READ_BYTES 16384 /* as in wire/poller.py */
#define READS_MAX 16
#define SPLINTER_BYTES 4 /* as in wire/inbox.py */
#define EVENTS_MAX 4096
#define KEPT_BYTES_MAX (1 << 20)
#define NS 1000000000LL

typedef struct {
    int64_t stamp_ns;
    size_t end; /* of this read, in the buffer */
} Mark;

typedef struct {
    PyObject_HEAD
    char *bytes;
    size_t used, room;
    Mark *marks;
    size_t reads, marks_room;
    char at_once;
} Inbox;

static PyObject *inbox_type; /* one interpreter: the module has no state of its own */

static void *grown(void *old, size_t *room, size_t needed, size_t size) {
    if (needed <= *room) return old;
    size_t wanted = *room ? *room : 64;
    while (wanted < needed) wanted *= 2;
    void *made = PyMem_Realloc(old, wanted * size);
    if (made == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *room = wanted;
    return made;
}

/* Keep a read; whether to parse now, or -1 with an exception. */
static int keep(Inbox *self, int64_t stamp_ns, const char *data, size_t length) {
    char *bytes = grown(self->bytes, &self->room, self->used + length, 1);
    if (bytes == NULL) return -1;
    self->bytes = bytes;
    Mark *marks = grown(self->marks, &self->marks_room, self->reads + 1, sizeof(Mark));
    if (marks == NULL) return -1;
    self->marks = marks;
    memcpy(bytes + self->used, data, length);
    self->used += length;
    marks[self->reads++] = (Mark){stamp_ns, self->used};
    return self->at_once || length <= SPLINTER_BYTES || length >= READ_BYTES ||
           memcmp(data + length - 4, "\r\n\r\n", 4) == 0;
}

static void forget(Inbox *self) {
    self->used = self->reads = 0;
    if (self->room > KEPT_BYTES_MAX) { /* one huge response is no reason to keep its room */
        PyMem_Free(self->bytes);
        self->bytes = NULL;
        self->room = 0;
    }
}

/* Append (stamp, bytes) to a list. */
static int append_piece(PyObject *list, int64_t stamp_ns, const char *data, size_t length) {
    PyObject *stamp = PyLong_FromLongLong(stamp_ns);
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)length);
    PyObject *piece = stamp && bytes ? PyTuple_Pack(2, stamp, bytes) : NULL;
    Py_XDECREF(stamp);
    Py_XDECREF(bytes);
    if (piece == NULL) return -1;
    int failed = PyList_Append(list, piece);
    Py_DECREF(piece);
    return failed;
}

static PyObject *inbox_add(Inbox *self, PyObject *args) {
    long long stamp_ns;
    const char *data;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "Ly#", &stamp_ns, &data, &length)) return NULL;
    int now = keep(self, stamp_ns, data, (size_t)length);
    return now < 0 ? NULL : PyBool_FromLong(now);
}

static PyObject *inbox_take(Inbox *self, PyObject *unused) {
    PyObject *list = PyList_New(0);
    size_t from = 0;
    for (size_t i = 0; list != NULL && i < self->reads; i++) {
        Mark mark = self->marks[i];
        if (append_piece(list, mark.stamp_ns, self->bytes + from, mark.end - from) < 0)
            Py_CLEAR(list);
        from = mark.end;
    }
    if (list != NULL) forget(self);
    return list;
}

/* Read a chunk's size line at p; its length, and where its contents begin. -1: not a plain one. */
static int64_t chunk_size(const char *bytes, size_t used, size_t *p) {
    int64_t size = 0;
    size_t digits = 0;
    for (; *p < used && digits <= 7; (*p)++, digits++) {
        char c = bytes[*p];
        int digit = c >= '0' && c <= '9' ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) break;
        size = size * 16 + digit;
    }
    if (!digits || *p + 2 > used || memcmp(bytes + *p, "\r\n", 2) != 0) return -1;
    *p += 2;
    return size;
}

/* Move the contents of all chunks together to the buffer's beginning, and each read's end with
   them. 0: the buffer is not exactly chunks and their end, and nothing was changed. */
static int unchunk(Inbox *self) {
    const char *bytes = self->bytes;
    size_t p = 0;
    int64_t size;
    while ((size = chunk_size(bytes, self->used, &p)) > 0) { /* first look, then touch */
        p += (size_t)size;
        if (p + 2 > self->used || memcmp(bytes + p, "\r\n", 2) != 0) return 0;
        p += 2;
    }
    if (size < 0 || p + 2 != self->used || memcmp(bytes + p, "\r\n", 2) != 0) return 0;
    size_t out = 0, read = 0;
    p = 0;
    while ((size = chunk_size(bytes, self->used, &p)) > 0) {
        size_t end = p + (size_t)size;
        for (; read < self->reads && self->marks[read].end <= end; read++)
            self->marks[read].end = out + (self->marks[read].end > p ? self->marks[read].end - p : 0);
        memmove(self->bytes + out, bytes + p, (size_t)size);
        out += (size_t)size;
        p = end + 2;
    }
    for (; read < self->reads; read++) self->marks[read].end = out;
    self->used = out;
    return 1;
}

static int append_number(PyObject *list, long long number) {
    PyObject *value = PyLong_FromLongLong(number);
    if (value == NULL) return -1;
    int failed = PyList_Append(list, value);
    Py_DECREF(value);
    return failed;
}

static PyObject *inbox_take_chunks(Inbox *self, PyObject *unused) {
    if (!unchunk(self)) Py_RETURN_NONE;
    PyObject *stamps = PyList_New(0), *ends = PyList_New(0);
    PyObject *body = PyBytes_FromStringAndSize(self->bytes, (Py_ssize_t)self->used);
    int failed = stamps == NULL || ends == NULL || body == NULL;
    size_t from = 0;
    for (size_t i = 0; !failed && i < self->reads; i++) {
        Mark mark = self->marks[i];
        if (mark.end > from)
            failed = append_number(stamps, mark.stamp_ns) < 0 ||
                     append_number(ends, (long long)mark.end) < 0;
        from = mark.end;
    }
    if (!failed) {
        forget(self);
        return Py_BuildValue("(NNN)", body, ends, stamps);
    }
    Py_XDECREF(stamps);
    Py_XDECREF(ends);
    Py_XDECREF(body);
    return NULL;
}

static PyObject *inbox_last_ns(Inbox *self, void *unused) {
    return PyLong_FromLongLong(self->reads ? self->marks[self->reads - 1].stamp_ns : 0);
}

static PyObject *inbox_size(Inbox *self, void *unused) {
    return PyLong_FromSize_t(self->used);
}

static PyObject *inbox_at_once(Inbox *self, void *unused) {
    return PyBool_FromLong(self->at_once);
}

static int inbox_set_at_once(Inbox *self, PyObject *value, void *unused) {
    int truth = value == NULL ? -1 : PyObject_IsTrue(value);
    if (truth < 0) return -1;
    self->at_once = (char)truth;
    return 0;
}

static Py_ssize_t inbox_length(Inbox *self) {
    return (Py_ssize_t)self->reads;
}

static PyObject *inbox_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Inbox *self = (Inbox *)alloc(type, 0); /* zeroed */
    if (self != NULL) self->at_once = 1;
    return (PyObject *)self;
}

static void inbox_dealloc(Inbox *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyMem_Free(self->bytes);
    PyMem_Free(self->marks);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef inbox_methods[] = {
    {"add", (PyCFunction)inbox_add, METH_VARARGS, "Keep a read; whether to parse now."},
    {"take", (PyCFunction)inbox_take, METH_NOARGS, "Return what was read, and forget it."},
    {"take_chunks", (PyCFunction)inbox_take_chunks, METH_NOARGS,
     "Return the body that the reads hold as plain chunks, the end and the stamp of each read in it,\n"
     "and forget them; None: they do not."},
    {NULL},
};

static PyGetSetDef inbox_attributes[] = {
    {"last_ns", (getter)inbox_last_ns, NULL, "When the last read came.", NULL},
    {"size", (getter)inbox_size, NULL, "Bytes that wait.", NULL},
    {"at_once", (getter)inbox_at_once, (setter)inbox_set_at_once,
     "Whether each read is to be parsed when it comes.", NULL},
    {NULL},
};

static PyType_Slot inbox_slots[] = {
    {Py_tp_new, inbox_new},
    {Py_tp_dealloc, inbox_dealloc},
    {Py_tp_methods, inbox_methods},
    {Py_tp_getset, inbox_attributes},
    {Py_sq_length, inbox_length},
    {Py_tp_doc, "Reads with their stamps, until they are parsed."},
    {0, NULL},
};

static PyType_Spec inbox_spec = {
    "llmdyno.wire._reading.Inbox", sizeof(Inbox), 0, Py_TPFLAGS_DEFAULT, inbox_slots};

/* Read what one connection has. Whether to parse (1), or the connection is lost: -2 the peer closed
   it, -3 with errno; -1 an exception. */
static int drain(int fd, int more, Inbox *inbox, int64_t offset_ns, long *reads, int epoll_fd) {
    static char data[READ_BYTES]; /* the GIL is held */
    union {
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr aligned;
    } control;
    int parse = 0;
    for (int turn = 0; turn < READS_MAX; turn++) {
        struct iovec part = {data, READ_BYTES};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control.bytes,
                                 .msg_controllen = sizeof control.bytes};
        ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT);
        if (length < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) return parse;
            if (errno == EINTR) continue;
            return -3;
        }
        if (length == 0) return -2;
        int64_t stamp_ns = 0;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        struct timespec stamp;
        if (header != NULL && header->cmsg_level == SOL_SOCKET) {
            memcpy(&stamp, CMSG_DATA(header), sizeof stamp);
            stamp_ns = stamp.tv_sec * NS + stamp.tv_nsec - offset_ns;
        } else { /* the kernel gave none */
            clock_gettime(CLOCK_MONOTONIC, &stamp);
            stamp_ns = stamp.tv_sec * NS + stamp.tv_nsec;
        }
        int now = keep(inbox, stamp_ns, data, (size_t)length);
        if (now < 0) return -1;
        parse |= now;
        ++*reads;
        if (length < READ_BYTES && !more) return parse;
    }
    /* Who sends without end gets its next turn after the others: an edge of its own. */
    struct epoll_event again = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &again);
    return parse;
}

static int append_lost(PyObject *list, int fd, int code) {
    PyObject *pair = Py_BuildValue("(ii)", fd, code);
    if (pair == NULL) return -1;
    int failed = PyList_Append(list, pair);
    Py_DECREF(pair);
    return failed;
}

static PyObject *look(PyObject *module, PyObject *args) {
    static struct epoll_event events[EVENTS_MAX]; /* the GIL is held */
    int epoll_fd;
    PyObject *inboxes;
    long long offset_ns;
    if (!PyArg_ParseTuple(args, "iO!L", &epoll_fd, &PyDict_Type, &inboxes, &offset_ns)) return NULL;
    PyObject *parse = PyList_New(0), *lost = PyList_New(0), *others = PyList_New(0);
    long reads = 0;
    int ready = parse && lost && others ? epoll_wait(epoll_fd, events, EVENTS_MAX, 0) : -1;
    if (ready < 0 && !PyErr_Occurred()) {
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            goto failed;
        }
        ready = 0;
    }
    for (int i = 0; i < ready; i++) {
        int fd = events[i].data.fd;
        PyObject *key = PyLong_FromLong(fd);
        if (key == NULL) goto failed;
        PyObject *inbox = PyDict_GetItemWithError(inboxes, key);
        Py_DECREF(key);
        if (inbox == NULL && PyErr_Occurred()) goto failed;
        if (inbox == NULL || !Py_IS_TYPE(inbox, (PyTypeObject *)inbox_type)) {
            if (append_number(others, fd) < 0) goto failed;
            continue;
        }
        int more = (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        int said = drain(fd, more, (Inbox *)inbox, offset_ns, &reads, epoll_fd);
        if (said == -1) goto failed;
        if (said <= -2 && append_lost(lost, fd, said == -3 ? errno : 0) < 0) goto failed;
        if (said == 1 && append_number(parse, fd) < 0) goto failed;
    }
    return Py_BuildValue("(NNNil)", parse, lost, others, ready, reads);
failed:
    Py_XDECREF(parse);
    Py_XDECREF(lost);
    Py_XDECREF(others);
    return NULL;
}

/* Where a JSON string ends that begins at p, just after its quote; 0: nowhere before the end, or it
   holds what no string may. */
static size_t string_end(const char *body, size_t length, size_t p) {
    for (; p < length; p++) {
        unsigned char c = (unsigned char)body[p];
        if (c == '"') return p;
        if (c < 0x20) return 0;
        if (c == '\\') p++; /* what follows is no end, whatever it is */
    }
    return 0;
}

static PyObject *split_run(PyObject *module, PyObject *args) {
    const char *body, *before, *after;
    Py_ssize_t length, start, before_length, after_length;
    if (!PyArg_ParseTuple(args, "y#ny#y#", &body, &length, &start, &before, &before_length, &after,
                          &after_length))
        return NULL;
    size_t end = (size_t)length, p = (size_t)start, used = 1, room = 0;
    size_t head = (size_t)before_length, tail = (size_t)after_length;
    char *array = grown(NULL, &room, end / 4 + 64, 1);
    PyObject *ends = array ? PyList_New(0) : NULL;
    if (ends == NULL) goto failed;
    array[0] = '[';
    while (p + head + tail <= end && memcmp(body + p, before, head) == 0) {
        size_t from = p + head, to = string_end(body, end, from);
        if (to <= from || to + tail > end || memcmp(body + to, after, tail) != 0) break;
        char *more = grown(array, &room, used + (to - from) + 4, 1);
        if (more == NULL) goto failed;
        array = more;
        array[used++] = '"';
        memcpy(array + used, body + from, to - from);
        used += to - from;
        memcpy(array + used, "\",", 2);
        used += 2;
        p = to + tail;
        if (append_number(ends, (long long)p) < 0) goto failed;
    }
    array[used == 1 ? used++ : used - 1] = ']'; /* instead of the last comma */
    PyObject *found = PyBytes_FromStringAndSize(array, (Py_ssize_t)used);
    PyMem_Free(array);
    return found ? Py_BuildValue("(NN)", ends, found) : (Py_DECREF(ends), NULL);
failed:
    PyMem_Free(array);
    Py_XDECREF(ends);
    return NULL;
}

static PyMethodDef functions[] = {
    {"split_run", split_run, METH_VARARGS,
     "split_run(body, start, before, after) -> (where each event ends, a JSON array of their texts)\n"
     "of the events from start on that are equal but for one JSON string, which is not empty."},
    {"look", look, METH_VARARGS,
     "look(epoll_fd, {fd: Inbox}, offset_ns) -> (fds to parse, [(fd, errno)] of the lost, fds\n"
     "without an inbox, fds that were ready, reads). Never waits."},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_reading", "Reading many connections in one go.", -1, functions};

PyMODINIT_FUNC PyInit__reading(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    inbox_type = PyType_FromSpec(&inbox_spec);
    if (inbox_type == NULL || PyModule_AddObjectRef(module, "Inbox", inbox_type) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
