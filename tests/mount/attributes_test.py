"""Attributes of a mount's files: modes, owners, times, extended attributes, space, maps."""
import ctypes
import errno
import mmap
import os
import signal
import stat
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from case import ClusterCase, read_file, write_all, write_file

NOBODY = 65534


def become_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


class Attributes(ClusterCase):
    def test_modes(self):
        folder = self.fresh_dir()
        old = os.umask(0o027)
        try:
            os.close(os.open(folder + "/f", os.O_WRONLY | os.O_CREAT, 0o666))
            os.mkdir(folder + "/d", 0o777)
        finally:
            os.umask(old)
        self.assertEqual(stat.S_IMODE(os.stat(folder + "/f").st_mode), 0o640)
        self.assertEqual(stat.S_IMODE(os.stat(folder + "/d").st_mode), 0o750)
        for mode in (0o600, 0o777, 0o444):
            os.chmod(folder + "/f", mode)
            self.assertEqual(stat.S_IMODE(os.stat(folder + "/f").st_mode), mode)
            self.assertTrue(stat.S_ISREG(os.stat(folder + "/f").st_mode))
        os.chmod(folder + "/d", 0o1777)
        self.assertEqual(stat.S_IMODE(os.stat(folder + "/d").st_mode), 0o1777)

    def test_owners(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"x")
        self.assertEqual((os.stat(path).st_uid, os.stat(path).st_gid), (os.getuid(), os.getgid()))
        os.chown(path, 1234, 5678)
        self.assertEqual((os.stat(path).st_uid, os.stat(path).st_gid), (1234, 5678))
        os.chown(path, -1, 99)
        self.assertEqual((os.stat(path).st_uid, os.stat(path).st_gid), (1234, 99))

    def test_times_move(self):
        folder = self.fresh_dir()
        before = time.time() - 1
        write_file(folder + "/f", b"x")
        first = os.stat(folder + "/f")
        for moment in (first.st_mtime, first.st_ctime, first.st_atime, os.stat(folder).st_mtime):
            self.assertGreater(moment, before)
            self.assertLess(moment, time.time() + 1)
        time.sleep(0.05)
        with open(folder + "/f", "ab") as f:
            f.write(b"y")
        self.assertGreater(os.stat(folder + "/f").st_mtime_ns, first.st_mtime_ns)
        folder_time = os.stat(folder).st_mtime_ns
        time.sleep(0.05)
        os.unlink(folder + "/f")
        self.assertGreater(os.stat(folder).st_mtime_ns, folder_time)

    def test_times_are_set_to_the_nanosecond(self):
        folder = self.fresh_dir()
        write_file(folder + "/f", b"x")
        os.mkdir(folder + "/d")
        for path in (folder + "/f", folder + "/d"):
            os.utime(path, ns=(1_111_111_111_123_456_789, 1_222_222_222_987_654_321))
            seen = os.stat(path)
            self.assertEqual((seen.st_atime_ns, seen.st_mtime_ns),
                             (1_111_111_111_123_456_789, 1_222_222_222_987_654_321))
        os.utime(folder + "/f")
        self.assertLess(abs(os.stat(folder + "/f").st_mtime - time.time()), 5)

    def test_set_times_outlast_a_close(self):
        path = os.path.join(self.fresh_dir(), "f")
        with open(path, "wb") as f:
            f.write(b"x")
            f.flush()
            os.utime(f.fileno(), ns=(10**18, 10**18 + 1))
        time.sleep(0.2)
        self.assertEqual(os.stat(path).st_mtime_ns, 10**18 + 1)
        with open(path, "rb") as f:
            self.assertEqual(os.fstat(f.fileno()).st_mtime_ns, 10**18 + 1)

    def test_size_of_an_open_file_is_seen_by_others(self):
        path = os.path.join(self.fresh_dir(), "f")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        for k in range(1, 4):
            os.write(fd, b"z" * 1000)
            self.assertEqual(os.stat(path).st_size, 1000 * k)

            def look():
                assert os.stat(path).st_size == 1000 * k, os.stat(path).st_size

            self.in_child(look)
        os.close(fd)

    def test_extended_attributes(self):
        folder = self.fresh_dir()
        write_file(folder + "/f", b"x")
        for path in (folder, folder + "/f"):
            self.assertEqual(os.listxattr(path), [])
            with self.fails(errno.ENODATA):
                os.getxattr(path, "user.k")
            os.setxattr(path, "user.k", b"value\0with zero")
            os.setxattr(path, "user.empty", b"")
            self.assertEqual(os.getxattr(path, "user.k"), b"value\0with zero")
            self.assertEqual(os.getxattr(path, "user.empty"), b"")
            self.assertEqual(sorted(os.listxattr(path)), ["user.empty", "user.k"])
            os.setxattr(path, "user.k", b"w")
            self.assertEqual(os.getxattr(path, "user.k"), b"w")
            with self.fails(errno.EEXIST):
                os.setxattr(path, "user.k", b"v", os.XATTR_CREATE)
            with self.fails(errno.ENODATA):
                os.setxattr(path, "user.new", b"v", os.XATTR_REPLACE)
            os.setxattr(path, "user.k", b"replaced", os.XATTR_REPLACE)
            os.setxattr(path, "user.new", b"created", os.XATTR_CREATE)
            self.assertEqual(os.getxattr(path, "user.k"), b"replaced")
            os.removexattr(path, "user.k")
            with self.fails(errno.ENODATA):
                os.getxattr(path, "user.k")
            with self.fails(errno.ENODATA):
                os.removexattr(path, "user.k")
            self.assertEqual(sorted(os.listxattr(path)), ["user.empty", "user.new"])

    def test_extended_attributes_move_with_a_rename(self):
        folder = self.fresh_dir()
        write_file(folder + "/a", b"x")
        os.setxattr(folder + "/a", "user.k", b"v" * 1000)
        os.rename(folder + "/a", folder + "/b")
        self.assertEqual(os.getxattr(folder + "/b", "user.k"), b"v" * 1000)

    def test_statfs(self):
        before = os.statvfs(self.mnt())
        total = before.f_blocks * before.f_frsize
        self.assertGreater(total, 512 << 20)
        self.assertLessEqual(total, 1 << 30)
        self.assertLessEqual(before.f_bavail, before.f_blocks)
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"x" * (64 << 20))

        def used():
            now = os.statvfs(self.mnt())
            return before.f_bavail * before.f_frsize - now.f_bavail * now.f_frsize

        self.eventually(lambda: used() >= 48 << 20, "64 MiB show as used")
        os.unlink(path)
        self.eventually(lambda: used() <= 16 << 20, "the 64 MiB are free again", 15)

    def test_permissions_of_another_user(self):
        folder = self.fresh_dir()
        os.chmod(folder, 0o755)
        write_file(folder + "/secret", b"secret")
        os.chmod(folder + "/secret", 0o600)
        write_file(folder + "/public", b"public")
        os.chmod(folder + "/public", 0o644)
        os.mkdir(folder + "/closed", 0o700)
        write_file(folder + "/closed/f", b"")
        os.mkdir(folder + "/open")
        os.chmod(folder + "/open", 0o777)

        def denied(call, *args):
            try:
                call(*args)
            except OSError as error:
                assert error.errno in (errno.EACCES, errno.EPERM), error
                return
            raise AssertionError(f"{call.__name__}{args} is allowed")

        def as_nobody():
            become_nobody()
            denied(os.open, folder + "/secret", os.O_RDONLY)
            denied(os.open, folder + "/public", os.O_WRONLY)
            denied(os.open, folder + "/new", os.O_WRONLY | os.O_CREAT)
            denied(os.unlink, folder + "/public")
            denied(os.rename, folder + "/public", folder + "/open/public")
            denied(os.mkdir, folder + "/d")
            denied(os.listdir, folder + "/closed")
            denied(os.stat, folder + "/closed/f")
            denied(os.chmod, folder + "/public", 0o777)
            denied(os.chown, folder + "/public", NOBODY, NOBODY)
            denied(os.truncate, folder + "/public", 0)
            assert read_file(folder + "/public") == b"public"
            write_file(folder + "/open/mine", b"mine")
            assert os.stat(folder + "/open/mine").st_uid == NOBODY

        self.in_child(as_nobody)
        self.assertEqual(read_file(folder + "/public"), b"public")

    def test_the_sticky_bit(self):
        folder = self.fresh_dir()
        os.chmod(folder, 0o1777)
        write_file(folder + "/roots", b"x")

        def as_nobody():
            become_nobody()
            try:
                os.unlink(folder + "/roots")
            except PermissionError:
                return
            raise AssertionError("unlinked what is another's in a sticky folder")

        self.in_child(as_nobody)


class Maps(ClusterCase):
    def test_a_shared_map_is_the_file(self):
        path = os.path.join(self.fresh_dir(), "f")
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 3 << 20)
        with mmap.mmap(fd, 3 << 20) as view:
            view[:5] = b"start"
            view[(2 << 20):(2 << 20) + 3] = b"mid"
            self.assertEqual(os.pread(fd, 5, 0), b"start")
            self.assertEqual(os.pread(fd, 3, 2 << 20), b"mid")
            os.pwrite(fd, b"written", 1 << 20)
            self.assertEqual(view[1 << 20:(1 << 20) + 7], b"written")
        os.close(fd)
        content = read_file(path)
        self.assertEqual((content[:5], content[2 << 20:(2 << 20) + 3]), (b"start", b"mid"))
        self.assertEqual(len(content), 3 << 20)

    def test_processes_share_a_map(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, bytes(8192))

        def other():
            fd = os.open(path, os.O_RDWR)
            with mmap.mmap(fd, 8192) as view:
                view[5000] = 7
                deadline = time.monotonic() + 10
                while view[100] != 9:
                    assert time.monotonic() < deadline, "the store of the parent is not seen"
                    time.sleep(0.002)
            os.close(fd)

        fd = os.open(path, os.O_RDWR)
        with mmap.mmap(fd, 8192) as view:
            child = self.fork(other)
            self.eventually(lambda: view[5000] == 7, "the store of the child is seen")
            view[100] = 9
            self.assertEqual(child.wait(15), 0)
        os.close(fd)
        self.assertEqual((read_file(path)[5000], read_file(path)[100]), (7, 9))

    def test_a_private_map_keeps_to_itself(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"original" * 1000)
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as view:
            view[:8] = b"changed!"
        self.assertEqual(read_file(path)[:8], b"original")

    def test_a_map_outlives_close_and_unlink(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"kept" * 2048)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        fd = os.open(path, os.O_RDONLY)
        address = libc.mmap(None, 8192, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        self.assertNotIn(address, (None, ctypes.c_void_p(-1).value))
        os.close(fd)
        os.unlink(path)
        time.sleep(0.5)
        self.assertEqual(ctypes.string_at(address + 4096, 4), b"kept")
        libc.munmap(address, 8192)


class DataPath(ClusterCase):
    def test_the_data_path_is_the_one_asked_for(self):
        """Passthrough needs nobody to write to an open file; without it the mount serves every write."""
        path = os.path.join(self.fresh_dir(), "f")

        def write_one():
            os.pwrite(fd, b"x" * 4096, 0)
            os.write(note, b"w")

        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"warm" * 1024, 0)
        listen, note = os.pipe()
        os.set_blocking(listen, False)
        self.cluster.signal("mount", signal.SIGSTOP)
        try:
            child = self.fork(write_one)
            time.sleep(1)
            try:
                done = os.read(listen, 1) == b"w"
            except BlockingIOError:
                done = False
        finally:
            self.cluster.signal("mount", signal.SIGCONT)
        self.assertEqual(child.wait(10), 0)
        self.assertEqual(done, self.cluster.passthrough == "on")
        for end in (fd, listen, note):
            os.close(end)


class Space(ClusterCase):
    memory = "256MiB"

    def fill(self, folder):
        """Writes files of 8 MiB until the worker is full; the errno that said so."""
        block = b"f" * (8 << 20)
        for k in range(64):
            fd = os.open(f"{folder}/{k}", os.O_WRONLY | os.O_CREAT)
            try:
                write_all(fd, block)
            except OSError as error:
                return error.errno
            finally:
                try:
                    os.close(fd)
                except OSError as error:
                    self.assertEqual(error.errno, errno.ENOSPC)
        self.fail("512 MiB went into a worker of 256 MiB")

    def test_a_full_worker_says_so_and_recovers(self):
        keep = self.mnt("keep")
        write_file(keep, b"kept" * 100000)
        worker = self.cluster.pid("worker-0")
        for turn in range(2):
            folder = self.mnt(f"turn{turn}")
            os.mkdir(folder)
            self.assertEqual(self.fill(folder), errno.ENOSPC)
            self.assertGreater(len(os.listdir(folder)), 10)
            self.assertEqual(read_file(keep), b"kept" * 100000)
            self.assertEqual(read_file(folder + "/0"), b"f" * (8 << 20))
            for name in os.listdir(folder):
                os.unlink(f"{folder}/{name}")

            def fits():
                try:
                    write_file(folder + "/again", b"a" * (64 << 20))
                    return True
                except OSError as error:
                    self.assertEqual(error.errno, errno.ENOSPC)
                    return False

            self.eventually(fits, "64 MiB fit after everything was deleted", 15)
            os.unlink(folder + "/again")
        self.assertEqual(self.cluster.pid("worker-0"), worker)
        self.assertTrue(self.cluster.running("worker-0"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
