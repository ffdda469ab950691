"""Gradients whose writer maps the file, or dies: whole or refused; and what a killed writer left never lands."""
import ctypes
import errno
import mmap
import os
import resource
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from case import write_all
from landing import LandingCase
from model import data_of, minus

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Maps(LandingCase):
    def raw_map(self, fd):
        address = LIBC.mmap(None, len(self.content), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        assert address not in (None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
        return address

    def store(self, address, begin, end):
        ctypes.memmove(address + begin, self.content[begin:end], end - begin)

    def close(self, fd):
        """Closes; a refusal may be told here."""
        try:
            os.close(fd)
        except OSError as error:
            assert error.errno in (errno.EINVAL, errno.EBUSY, errno.ETXTBSY), error

    def through_a_map(self, stored_before_close):
        def writer():
            fd = self.create(os.O_RDWR)
            os.ftruncate(fd, len(self.content))
            address = self.raw_map(fd)
            self.store(address, 0, stored_before_close)
            self.close(fd)
            time.sleep(0.3)
            self.store(address, stored_before_close, len(self.content))
            LIBC.munmap(address, len(self.content))
            time.sleep(0.2)

        self.assertEqual(self.fork(writer).wait(20), 0)
        self.landed_or_refused()

    def test_all_is_stored_after_the_close(self):
        self.through_a_map(0)

    def test_the_header_is_stored_before_the_close(self):
        self.through_a_map(self.header)

    def test_half_is_stored_before_the_close(self):
        self.through_a_map(self.half)

    def test_all_is_stored_before_the_close(self):
        self.through_a_map(len(self.content))

    def test_a_map_that_ends_before_the_close(self):
        def writer():
            fd = self.create(os.O_RDWR)
            os.ftruncate(fd, len(self.content))
            address = self.raw_map(fd)
            self.store(address, 0, len(self.content))
            LIBC.munmap(address, len(self.content))
            os.close(fd)

        self.assertEqual(self.fork(writer).wait(20), 0)
        self.landed()

    def test_pythons_mmap(self):
        """It dups the descriptor, and closes the copy before it unmaps."""
        def writer():
            with open(self.target, "w+b") as f:
                f.truncate(len(self.content))
                view = mmap.mmap(f.fileno(), len(self.content))
                view[:self.header] = self.content[:self.header]
            time.sleep(0.3)
            view[self.header:] = self.content[self.header:]
            view.close()
            time.sleep(0.2)

        self.assertIn(self.fork(writer).wait(20), (0, 1))
        self.landed_or_refused()

    def test_a_map_in_a_file_that_is_renamed_in(self):
        """Written through a map under a dot-name, then renamed: the documented way for those who map."""
        def writer():
            hidden = self.model.file("gradients", ".x")
            with open(hidden, "w+b") as f:
                f.truncate(len(self.content))
                with mmap.mmap(f.fileno(), len(self.content)) as view:
                    view[:] = self.content
            os.rename(hidden, self.target)

        self.assertEqual(self.fork(writer).wait(20), 0)
        self.landed()


class Killed(LandingCase):
    def kill_between_write_and_close(self, number):
        ready, note = os.pipe()

        def writer():
            write_all(self.create(), self.content)
            os.write(note, b"w")
            time.sleep(60)

        child = self.fork(writer)
        self.assertEqual(os.read(ready, 1), b"w")
        child.kill(number)
        self.assertEqual(child.wait(2), -number)
        self.never_lands()

    def test_sigkill(self):
        self.kill_between_write_and_close(signal.SIGKILL)

    def test_sigterm(self):
        self.kill_between_write_and_close(signal.SIGTERM)

    def test_sigsegv(self):
        self.kill_between_write_and_close(signal.SIGSEGV)

    def test_killed_with_a_dup_and_a_second_thread(self):
        ready, note = os.pipe()

        def writer():
            fd = self.create()
            os.dup(fd)
            write_all(fd, self.content)
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            os.write(note, b"w")
            time.sleep(60)

        child = self.fork(writer)
        self.assertEqual(os.read(ready, 1), b"w")
        child.kill()
        self.assertEqual(child.wait(2), -9)
        self.never_lands()

    def test_an_abort(self):
        def writer():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            write_all(self.create(), self.content)
            os.abort()

        self.assertEqual(self.fork(writer).wait(10), -signal.SIGABRT)
        self.never_lands()

    def stop_worker_and(self, wait):
        """wait(fd) blocks in a process of its own while the worker stands still; that process is then killed."""
        ready, note = os.pipe()
        go, start = os.pipe()
        name = self.model.file("slots", "x") if wait is os.fsync else self.target

        def writer():
            fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
            write_all(fd, self.content)
            os.write(note, b"w")
            os.read(go, 1)
            wait(fd)

        child = self.fork(writer)
        self.assertEqual(os.read(ready, 1), b"w")
        self.cluster.signal("worker-0", signal.SIGSTOP)
        try:
            os.write(start, b"g")
            time.sleep(0.7)
            self.assertIsNone(child.poll(), "the call returned while the worker stood still")
            child.kill()
            self.assertEqual(child.wait(2), -9, "a killed process waits on")
        finally:
            self.cluster.signal("worker-0", signal.SIGCONT)
        time.sleep(1)
        now = self.model.bits()
        self.assertIn(now, (self.before, self.after), "half of it was applied")
        self.model.push(self.gradient, name="next")
        twice = data_of(minus(self.model.start, self.gradient, 2))
        self.assertEqual(self.model.bits(), self.after if now == self.before else twice)

    def test_sigkill_while_it_waits_in_close(self):
        self.stop_worker_and(os.close)

    def test_sigkill_while_it_waits_in_fsync(self):
        self.stop_worker_and(os.fsync)


class Anew(LandingCase):
    def test_a_name_that_is_landing_is_made_anew(self):
        """Who opens the name of a gradient whose writer was killed in close() does not write into what lands."""
        def dies():
            fd = self.create()
            write_all(fd, self.content)
            self.cluster.signal("worker-0", signal.SIGSTOP)
            os.close(fd)

        def goes_on():
            fd = self.create()
            write_all(fd, self.content)
            os.close(fd)

        first = self.fork(dies)
        time.sleep(0.5)
        first.kill()
        self.assertEqual(first.wait(2), -signal.SIGKILL)
        second = self.fork(goes_on)
        time.sleep(0.3)
        self.cluster.signal("worker-0", signal.SIGCONT)
        self.assertEqual(second.wait(20), 0)
        self.assertEqual(self.model.bits(), data_of(minus(self.model.start, self.gradient, 2)))
        self.assertEqual(self.model.rejected(), [])
        self.assertEqual(os.listdir(self.model.file("gradients")), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
