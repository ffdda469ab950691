"""Test cases over a shared cluster: one cluster a class, a fresh one after a failure, a deadline for every test."""
import contextlib
import errno
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
import unittest

from cluster import Cluster


class Child:
    """A forked process that runs a function; its exit code is 0 if the function returned, 1 if it raised."""

    def __init__(self, function, *args):
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self.status = None
        if self.pid == 0:
            code = 1
            try:
                function(*args)
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)

    def poll(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, timeout_s=30):
        """The exit code, negative for a signal; None if the process still runs after timeout_s."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.status

    def kill(self, number=signal.SIGKILL):
        if self.poll() is None:
            os.kill(self.pid, number)


class ClusterCase(unittest.TestCase):
    """cluster is up when a test begins. memory and limit_s (the longest a test may take) are the subclass's to set."""

    memory = "1GiB"
    limit_s = 60
    cluster = None
    failed_starts = 0

    def setUp(self):
        kind = type(self)
        if kind.cluster is None:
            self.assertLess(ClusterCase.failed_starts, 2, "the cluster did not start, twice")
            try:
                kind.cluster = Cluster(memory=self.memory)
            except RuntimeError:
                ClusterCase.failed_starts += 1
                raise
        self.children = []
        self._late = False
        self._timer = threading.Timer(self.limit_s, self._abort)
        self._timer.daemon = True
        self._timer.start()
        self.addCleanup(self._finish)

    def _abort(self):
        self._late = True
        faulthandler.dump_traceback(all_threads=True)
        self.cluster.abort()

    def _finish(self):
        self._timer.cancel()
        for child in self.children:
            child.kill()
            child.wait(10)
        result = self._outcome.result
        failed = any(getattr(case, "test_case", case) is self for case, _ in result.errors + result.failures)
        if self._late or failed:
            print(f"\n{self.id()}\n{self.cluster.logs()}", file=sys.stderr, flush=True)
            self.cluster.destroy()
            type(self).cluster = None
        self.assertFalse(self._late, f"the test did not end in {self.limit_s} s")

    @classmethod
    def tearDownClass(cls):
        if cls.cluster is not None:
            cls.cluster.destroy()
            cls.cluster = None

    def mnt(self, *names):
        return self.cluster.path(*names)

    def fresh_dir(self):
        """An empty folder of the mount, named after the test."""
        path = self.mnt(self._testMethodName)
        os.mkdir(path)
        return path

    def fork(self, function, *args):
        child = Child(function, *args)
        self.children.append(child)
        return child

    def in_child(self, function, *args, timeout_s=30):
        """Runs a function in a process of its own, which must end well."""
        code = self.fork(function, *args).wait(timeout_s)
        self.assertIsNotNone(code, f"the child still runs after {timeout_s} s")
        self.assertEqual(code, 0, "the child failed")

    @contextlib.contextmanager
    def fails(self, *codes):
        """The body must fail with one of these errnos."""
        names = " or ".join(errno.errorcode[code] for code in codes)
        try:
            yield
        except OSError as error:
            got = errno.errorcode.get(error.errno, error.errno)
            self.assertIn(error.errno, codes, f"{got} ({error}) instead of {names}")
            return
        self.fail(f"no error instead of {names}")

    def eventually(self, true, what, timeout_s=5):
        deadline = time.monotonic() + timeout_s
        while not true():
            self.assertLess(time.monotonic(), deadline, f"after {timeout_s} s still not: {what}")
            time.sleep(0.02)


def write_file(path, content):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(fd, content)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)


def write_all(fd, content):
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view):]


def read_file(path):
    with open(path, "rb") as f:
        return f.read()
