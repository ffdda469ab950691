"""A worker that may not mount a tmpfs keeps its images in /dev/shm, and its memory is bounded all the same."""
import errno
import glob
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import safetensors
from case import ClusterCase, read_file, write_file
from model import Model, data_of, minus

MIB = 1 << 20
LIMIT_MIB = 32
SLACK_MIB = 8  # what a mount may write before it asks again


class Unbounded(ClusterCase):
    memory = f"{LIMIT_MIB}MiB"

    def setUp(self):
        super().setUp()
        if not glob.glob(os.path.join(self.cluster.dir, "worker-0", "location")):
            self.start_without_mounts()

    def start_without_mounts(self):
        with open(f"/proc/{self.cluster.pid('worker-0')}/cmdline", "rb") as f:
            command = [word.decode() for word in f.read().split(b"\0")[:-1]]
        self.cluster.kill9("worker-0")
        home = os.path.join(self.cluster.dir, "worker-0")
        subprocess.run(["umount", "-l", os.path.join(home, "mem")], check=True)
        log = open(os.path.join(self.cluster.dir, "worker-0.log"), "ab")
        with log:
            worker = subprocess.Popen(["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", *command],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.addClassCleanup(worker.wait, 20)
        self.addClassCleanup(self.cluster.destroy)
        with open(os.path.join(self.cluster.dir, "worker-0.pid"), "w") as f:
            f.write(f"{worker.pid}\n")
        self.cluster.up()
        self.assertEqual(self.cluster.pid("worker-0"), worker.pid)

    def test_a_model_learns(self):
        model = Model(self.cluster)
        model.push(model.start)
        slot = os.open(model.file("slots", "w"), os.O_RDWR | os.O_CREAT)
        os.write(slot, safetensors.pack(model.start))
        os.fsync(slot)
        os.close(slot)
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start, 2)))
        with self.fails(errno.EINVAL):
            write_file(model.file("gradients", "bad"), b"no safetensors file")

    def fill(self, path):
        """Writes MiBs until there is no room; how many there was."""
        block = os.urandom(MIB)
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            for written in range(2 * LIMIT_MIB):
                try:
                    self.assertEqual(os.pwrite(fd, block, written * MIB), MIB)
                except OSError as error:
                    self.assertEqual(error.errno, errno.ENOSPC)
                    self.assertEqual(os.pread(fd, MIB, (written - 1) * MIB), block)
                    self.assertEqual(os.pwrite(fd, block, 0), MIB)  # there is memory for that
                    return written
        finally:
            os.close(fd)
        self.fail(f"{2 * LIMIT_MIB} MiB in a worker of {LIMIT_MIB}")

    def test_full(self):
        for _ in range(2):  # an unlink makes room again
            written = self.fill(self.mnt("big"))
            self.assertGreater(written, LIMIT_MIB // 2)
            self.assertLessEqual(written, LIMIT_MIB + SLACK_MIB)
            with self.fails(errno.ENOSPC):
                for k in range(100):
                    write_file(self.mnt(f"more{k}"), b"x" * MIB)
            self.assertEqual(os.path.getsize(self.mnt("big")), written * MIB)
            for path in glob.glob(self.mnt("more*")) + [self.mnt("big")]:
                os.unlink(path)
            self.eventually(lambda: os.statvfs(self.mnt()).f_bavail > 0, "room again", 10)
            self.eventually(self.is_empty, "its memory is free", 10)

    def is_empty(self):
        return " MiB of" not in self.cluster.fsctl("status").out

    def test_fallocate(self):
        fd = os.open(self.mnt("f"), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.unlink, self.mnt("f"))
        self.addCleanup(os.close, fd)
        os.posix_fallocate(fd, 0, 4 * MIB)
        self.assertEqual(os.fstat(fd).st_blocks, 8 * 1024)
        with self.fails(errno.ENOSPC):
            os.posix_fallocate(fd, 0, 2 * LIMIT_MIB * MIB)

    def test_it_says_so(self):
        write_file(self.mnt("f"), b"x")
        self.assertEqual(read_file(self.mnt("f")), b"x")
        os.unlink(self.mnt("f"))
        self.assertIn("could not mount a tmpfs", read_file(os.path.join(self.cluster.dir, "mount.log")).decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
