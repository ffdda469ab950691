"""How a gradient gets into a model: by a slot, by a new file, by a rename; and how its outcome is made certain."""
import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import time
import urllib.parse

from .buffers import write_all
from .errors import REFUSALS, InvalidGradient, OutcomeUnknown, PushFailed, SlotInUse

PAUSE_FIRST_S = 0.005
PAUSE_LONGEST_S = 1.0
NAME_MAX = 180  # of 255: a dot, a step, a process, a serial number and an ending come on top

# Of an open or a write, where nothing can have landed yet: trying again would not help.
PERMANENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC,
             errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.EFBIG}


def file_stem(run, worker):
    """A file name for a worker of a run: one that is no dot-file, has no slash and is not too long."""
    stem = "-".join(urllib.parse.quote(text, safe="") for text in (run, worker))
    if stem.startswith("."):
        stem = "%2E" + stem[1:]
    if len(stem) > NAME_MAX:
        stem = hashlib.sha256(stem.encode()).hexdigest()
    return stem


class Slot:
    """slots/RUN-WORKER.safetensors: made once, written over for each push; its fsync is the push.

    A record lock says that it is taken. It goes with the process, however that ends, and is not inherited."""

    def __init__(self, directory, stem):
        self.name = f"{stem}.safetensors"
        self.path = os.path.join(directory, "slots", self.name)
        self.fd = self.size = None

    def store(self, step, buffers):
        if self.fd is None:
            self._open()
        size = sum(map(len, buffers))
        if size != self.size:
            os.ftruncate(self.fd, size)
            self.size = size
        write_all(self.fd, buffers)

    def commit(self):
        os.fsync(self.fd)

    def _open(self):
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise SlotInUse(f"{self.path} belongs to another process: "
                                "each worker needs a name of its own") from None
            raise
        self.fd, self.size = fd, os.fstat(fd).st_size

    def drop(self, refused=False):
        """A refused slot may be used again; one whose outcome is unknown is opened anew."""
        if self.fd is not None and not refused:
            with contextlib.suppress(OSError):
                os.close(self.fd)
            self.fd = None

    def close(self):
        if self.fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.drop()


class NewFile:
    """A new file in gradients/ for each push; its close is the push."""
    serial = itertools.count()  # no name comes twice from one process: what is landing has its name until it has landed

    def __init__(self, directory, stem):
        self.directory, self.stem = os.path.join(directory, "gradients"), stem
        self.name = self.path = self.fd = None

    def _choose_name(self, step):
        self.name = f"{self.stem}-{step}-{os.getpid()}-{next(self.serial)}.safetensors"
        self.path = os.path.join(self.directory, self.name)

    def store(self, step, buffers):
        self._choose_name(step)
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write_all(self.fd, buffers)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # before the close, so that no half gradient lands
            self.drop()
            raise

    def commit(self):
        fd, self.fd = self.fd, None
        os.close(fd)

    def drop(self, refused=False):
        if self.fd is not None:
            with contextlib.suppress(OSError):
                os.close(self.fd)
            self.fd = None

    def close(self):
        self.drop()


class RenamedFile(NewFile):
    """A file with a dot-name, which never lands; its rename is the push. Nothing half written ever stands in
    rejected/, even if this process is killed."""

    def store(self, step, buffers):
        self._choose_name(step)
        self.hidden = os.path.join(self.directory, f".{self.name}")
        try:
            with open(self.hidden, "xb", buffering=0) as file:
                write_all(file.fileno(), buffers)
        except BaseException:
            self.drop(refused=True)
            raise

    def commit(self):
        os.rename(self.hidden, self.path)

    def drop(self, refused=False):
        if refused:  # its source stayed where it was. What is under way is left alone
            with contextlib.suppress(OSError):
                os.unlink(self.hidden)


WAYS = {"slot": Slot, "file": NewFile, "rename": RenamedFile}


class Pusher:
    """One worker of one run. directory: the model's. through: a key of WAYS."""

    def __init__(self, directory, run, worker, through):
        self.directory, self.run, self.worker = directory, run, worker
        self.way = WAYS[through](directory, file_stem(run, worker))
        self.process = os.getpid()

    def push(self, step, buffers, timeout_s):
        """Pushes until the outcome is known. (has it counted before, did it take more than one attempt)

        The buffers stay as they are meanwhile; the header that is among them names this run, worker and step."""
        deadline = time.monotonic() + timeout_s
        pause, attempt, unknown = PAUSE_FIRST_S, 0, None
        while True:
            attempt += 1
            try:
                self.way.store(step, buffers)
            except OSError as error:
                failure = error
                if unknown is None and error.errno in PERMANENT:
                    self.way.drop()
                    raise self._error(PushFailed, step, error) from None
            else:
                try:
                    self.way.commit()
                    return False, attempt > 1
                except OSError as error:
                    if error.errno == errno.EEXIST or error.errno in REFUSALS:
                        self.way.drop(refused=True)
                        if error.errno == errno.EEXIST:
                            return True, attempt > 1
                        raise self._error(REFUSALS[error.errno], step, error, self._reason()) from None
                    failure = unknown = error
            self.way.drop()
            if time.monotonic() + pause > deadline:
                raise self._error(OutcomeUnknown if unknown else PushFailed, step, failure) from None
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_LONGEST_S)

    def _error(self, kind, step, error, reason=None):
        text = os.strerror(error.errno) + (f": {reason}" if reason else "")
        return kind(error.errno, text, self.way.path or self.directory, self.run, self.worker, step, reason)

    def _reason(self):
        path = os.path.join(self.directory, "rejected", self.way.name)
        with contextlib.suppress(OSError):
            return os.getxattr(path, "user.gradfs.reason").decode(errors="replace").strip()
        return None

    def invalid(self, step, text):
        """What is wrong with a gradient that is not worth writing."""
        return InvalidGradient(errno.EINVAL, text, self.directory, self.run, self.worker, step, text)

    def close(self):
        """A slot's memory is freed; its owner alone does that."""
        if os.getpid() == self.process:
            self.way.close()
