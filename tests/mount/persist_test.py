"""What is acknowledged outlives every process: kill -9 of master, worker and mount, and a stop of all."""
import errno
import mmap
import os
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import safetensors
from case import ClusterCase, read_file, write_all, write_file
from cluster import BIN, alive, free_port, mounts_below, run, wait_dead
from model import Model, data_of, minus


def is_mounted(path):
    return path in mounts_below(path)


def grow(root, seed):
    """Makes a tree with every kind of entry, and returns what it must look like."""
    os.mkdir(root)
    for k in range(40):
        os.makedirs(f"{root}/d{k % 5}/e{k % 3}", exist_ok=True)
        write_file(f"{root}/d{k % 5}/e{k % 3}/f{k}", b"%d-%d;" % (seed, k) * (1 + 700 * k))
    for k in range(0, 40, 4):
        os.unlink(f"{root}/d{k % 5}/e{k % 3}/f{k}")
    os.rename(f"{root}/d1", f"{root}/renamed")
    os.symlink("renamed", f"{root}/link")
    os.setxattr(f"{root}/d2", "user.k", b"%d" % seed)
    os.chmod(f"{root}/d3", 0o711)
    os.utime(f"{root}/d4", ns=(10**18, 10**18 + seed))
    return picture(root)


def picture(root):
    """Everything below a folder, as a dict."""
    seen = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            what = os.lstat(path)
            entry = [what.st_mode, what.st_uid, what.st_mtime_ns, what.st_ino]
            if os.path.islink(path):
                entry.append(os.readlink(path))
            else:
                entry.append({key: os.getxattr(path, key) for key in os.listxattr(path)})
                if name in files:
                    entry.append(read_file(path))
            seen[path] = entry
    return seen


class Processes(ClusterCase):
    limit_s = 90

    def check_tree_after(self, break_it):
        root = self.mnt(self._testMethodName)
        expected = grow(root, 7)
        break_it()
        self.assertEqual(picture(root).keys(), expected.keys())
        self.assertEqual(picture(root), expected)
        write_file(root + "/later", b"later")
        self.assertEqual(read_file(root + "/later"), b"later")

    def test_kill_master(self):
        def break_it():
            self.cluster.kill9("master")
            self.cluster.restart("master")

        self.check_tree_after(break_it)

    def test_kill_worker(self):
        def break_it():
            self.cluster.kill9("worker-0")
            self.cluster.restart("worker-0")

        self.check_tree_after(break_it)

    def test_kill_both(self):
        def break_it():
            self.cluster.kill9("worker-0")
            self.cluster.kill9("master")
            self.cluster.up()

        self.check_tree_after(break_it)

    def test_stop_and_start(self):
        pids = [self.cluster.pid(name) for name in ("master", "worker-0", "mount")]

        def break_it():
            self.cluster.down()
            self.assertEqual([alive(pid) for pid in pids], [False] * 3)
            self.assertFalse(is_mounted(self.cluster.mnt))
            self.cluster.up()

        self.check_tree_after(break_it)

    def test_every_one_is_killed(self):
        def break_it():
            for name in ("mount", "worker-0", "master"):
                self.cluster.kill9(name)
            self.cluster.up()

        self.check_tree_after(break_it)

    def test_open_files_and_maps_go_on_without_the_worker(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"a" * 65536)
        fd = os.open(path, os.O_RDWR)

        def use():
            with mmap.mmap(fd, 65536) as view:
                assert view[40000] == ord("a")
                view[40000] = ord("m")
                assert os.pread(fd, 3, 0) == b"aaa"
                assert os.pwrite(fd, b"www", 10) == 3
                assert os.pread(fd, 3, 10) == b"www"

        with mmap.mmap(fd, 65536) as view:
            self.cluster.kill9("worker-0")
            self.assertEqual(view[5], ord("a"))
            self.in_child(use, timeout_s=10)
            self.cluster.restart("worker-0")
            self.assertEqual(view[40000], ord("m"))
            os.pwrite(fd, b"z", 20)
        os.close(fd)
        expected = bytearray(b"a" * 65536)
        expected[40000], expected[10:13], expected[20] = ord("m"), b"www", ord("z")
        self.assertEqual(read_file(path), expected)

    def test_calls_wait_for_a_master_that_restarts(self):
        folder = self.fresh_dir()
        self.cluster.kill9("master")

        def create():
            write_file(folder + "/new", b"new")

        child = self.fork(create)
        time.sleep(0.7)
        self.assertIsNone(child.poll(), "a create without a master ended")
        self.cluster.restart("master")
        self.assertEqual(child.wait(20), 0)
        self.assertEqual(read_file(folder + "/new"), b"new")

    def test_deleted_files_stay_deleted_and_their_space_is_free(self):
        folder = self.fresh_dir()
        write_file(folder + "/big", b"b" * (300 << 20))
        os.unlink(folder + "/big")
        self.cluster.kill9("worker-0")
        self.cluster.kill9("master")
        self.cluster.up()
        self.assertEqual(os.listdir(folder), [])

        def fits():
            try:
                for k in range(3):
                    write_file(f"{folder}/{k}", b"c" * (250 << 20))
                return True
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
                return False

        try:
            self.eventually(fits, "750 MiB fit into 1 GiB again", 20)
        finally:
            for name in os.listdir(folder):
                os.unlink(f"{folder}/{name}")

    def test_a_model_outlives_everything(self):
        model = Model(self.cluster)
        expected, first = model.start, model.version()
        rounds = [("worker-0",), ("master",), ("worker-0", "master"), ("mount",), ("mount", "worker-0", "master"), ()]
        for k, names in enumerate(rounds):
            model.push(model.start, run="r", worker="w", step=k)
            expected = minus(expected, model.start)
            for name in names:
                self.cluster.kill9(name)
            if not names:
                self.cluster.down()
            self.cluster.up()
            self.assertEqual(model.bits(), data_of(expected), f"after {names or 'down'}")
            self.assertEqual(model.version(), first + k + 1)
            self.assertEqual(int(model.status()["workers"]["w"]["last_step"]), k)
            with self.fails(errno.EEXIST):
                model.push(model.start, run="r", worker="w", step=k)
        self.assertEqual(model.bits(), data_of(expected))


class KilledMount(ClusterCase):
    limit_s = 90

    def test_what_was_open_is_kept_but_no_gradient_lands(self):
        folder = self.fresh_dir()
        write_file(folder + "/closed", b"closed" * 1000)
        model = Model(self.cluster)
        first = model.version()
        gradient = safetensors.pack(model.start)
        ready, note = os.pipe()

        def hold_open():
            fd = os.open(folder + "/open", os.O_WRONLY | os.O_CREAT)
            write_all(fd, b"open" * 5000)
            push = os.open(model.file("gradients", "g"), os.O_WRONLY | os.O_CREAT)
            write_all(push, gradient)
            os.write(note, b"r")
            time.sleep(60)

        child = self.fork(hold_open)
        self.assertEqual(os.read(ready, 1), b"r")
        self.cluster.kill9("mount")
        with self.fails(errno.ENOTCONN, errno.ECONNABORTED):
            os.listdir(self.cluster.mnt)
        self.cluster.up()
        self.assertEqual(read_file(folder + "/closed"), b"closed" * 1000)
        self.eventually(lambda: read_file(folder + "/open") == b"open" * 5000, "what was written is in the file", 20)
        self.eventually(lambda: os.stat(folder + "/open").st_size == 20000, "the lost mount's lease has ended", 30)
        child.kill()
        child.wait()
        time.sleep(2)
        self.assertEqual(model.bits(), data_of(model.start))
        self.assertEqual(model.version(), first)
        model.push(model.start)
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start)))

    def test_umount_ends_the_daemon(self):
        pid = self.cluster.pid("mount")
        write_file(self.mnt("before"), b"before")
        done = run(["umount", self.cluster.mnt])
        self.assertEqual(done.code, 0, str(done))
        self.assertTrue(wait_dead(pid, 10), "gradfs-mount still runs 10 s after umount")
        self.assertFalse(is_mounted(self.cluster.mnt))
        self.cluster.up()
        self.assertNotEqual(self.cluster.pid("mount"), pid)
        self.assertEqual(read_file(self.mnt("before")), b"before")

    def test_umount_of_a_busy_mount_is_refused(self):
        path = self.mnt("busy")
        write_file(path, b"x")
        with open(path, "rb"):
            self.assertNotEqual(run(["umount", self.cluster.mnt]).code, 0)
        self.assertEqual(read_file(path), b"x")
        self.assertTrue(self.cluster.running("mount"))


class MountCommand(ClusterCase):
    limit_s = 90

    def setUp(self):
        super().setUp()
        self.point = self.cluster.local(f"point-{self._testMethodName}")
        os.mkdir(self.point)
        self.addCleanup(lambda: subprocess.run(["umount", "-l", self.point], stderr=subprocess.DEVNULL))

    def say_no_master(self, *flags):
        start = time.monotonic()
        address = f"127.0.0.1:{free_port()}"
        done = run([os.path.join(BIN, "gradfs-mount"), address, self.point, *flags], timeout_s=40)
        self.assertNotIn(done.code, (0, "timeout"), str(done))
        self.assertLess(time.monotonic() - start, 30)
        lines = done.err.splitlines()
        self.assertEqual(len(lines), 1, str(done))
        self.assertIn(address, lines[0])
        self.assertFalse(is_mounted(self.point))

    def test_no_master_in_the_background(self):
        self.say_no_master()

    def test_no_master_in_the_foreground(self):
        self.say_no_master("-f")

    def test_a_mount_point_that_is_not_there(self):
        done = run([os.path.join(BIN, "gradfs-mount"), self.cluster.address, self.point + "/nothing"], timeout_s=30)
        self.assertNotIn(done.code, (0, "timeout"), str(done))
        self.assertEqual(len(done.err.splitlines()), 1, str(done))

    def use_and_umount(self):
        """The mount under self.point shows what the cluster's own mount shows, and ends."""
        name = f"seen-{self._testMethodName}"
        self.assertTrue(is_mounted(self.point))
        write_file(self.mnt(name), b"by the first mount")
        self.assertEqual(read_file(os.path.join(self.point, name)), b"by the first mount")
        write_file(os.path.join(self.point, name + "-2"), b"by the second")
        self.eventually(lambda: os.path.exists(self.mnt(name + "-2")), "the first mount sees a new file")
        self.assertEqual(read_file(self.mnt(name + "-2")), b"by the second")
        self.assertEqual(run(["umount", self.point]).code, 0)
        self.assertFalse(is_mounted(self.point))

    def test_mount_gradfs_as_mount_calls_it(self):
        done = run([os.path.join(BIN, "mount.gradfs"), self.cluster.address, self.point, "-s", "-n", "-v",
                    "-o", f"rw,passthrough={self.cluster.passthrough}"], timeout_s=40)
        self.assertEqual(done.code, 0, str(done))
        self.use_and_umount()

    def test_mount_gradfs_with_joined_flags(self):
        done = run([os.path.join(BIN, "mount.gradfs"), self.cluster.address, self.point, "-snv",
                    "-o", f"rw,_netdev,nosuid,passthrough={self.cluster.passthrough}"], timeout_s=40)
        self.assertEqual(done.code, 0, str(done))
        self.use_and_umount()

    def test_mount_gradfs_f_only_pretends(self):
        done = run([os.path.join(BIN, "mount.gradfs"), self.cluster.address, self.point, "-sfnv", "-o", "rw"],
                   timeout_s=40)
        self.assertEqual(done.code, 0, str(done))
        self.assertFalse(is_mounted(self.point))

    def test_an_unknown_option_is_refused(self):
        for option in ("passthrough=perhaps", "no_such_option_at_all=1"):
            program = os.path.join(BIN, "gradfs-mount")
            done = run([program, self.cluster.address, self.point, "-o", option], timeout_s=40)
            self.assertNotIn(done.code, (0, "timeout"), str(done))
            self.assertFalse(is_mounted(self.point))

    def test_a_foreground_mount_ends_on_sigterm(self):
        command = [os.path.join(BIN, "gradfs-mount"), self.cluster.address, self.point, "-f",
                   "-o", f"passthrough={self.cluster.passthrough}"]
        with open(self.cluster.local("foreground.log"), "wb") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self.eventually(lambda: is_mounted(self.point), "the mount is there", 20)
            self.eventually(lambda: os.path.isdir(os.path.join(self.point, "models")), "the mount works", 20)
            daemon.send_signal(signal.SIGTERM)
            self.assertEqual(daemon.wait(10), 0)
            self.eventually(lambda: not is_mounted(self.point), "the mount is gone", 5)
        finally:
            daemon.kill()
            daemon.wait()


if __name__ == "__main__":
    unittest.main(verbosity=2)
