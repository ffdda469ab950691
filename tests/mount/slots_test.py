"""Slots push at fsync and only there; a step that has counted does not count again."""
import errno
import mmap
import os
import shutil
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import safetensors
from case import ClusterCase, read_file, write_file
from model import Model, data_of, minus, small_tensors


class Slots(ClusterCase):
    def setUp(self):
        super().setUp()
        self.model = Model(self.cluster)
        self.slot = self.model.file("slots", "w0")

    def expect(self, pushes, text):
        # Not assertEqual: its diff of a model takes minutes.
        self.assertTrue(self.model.bits() == data_of(minus(self.model.start, self.model.start, pushes)), text)

    def test_fsync_pushes_each_time(self):
        fd = os.open(self.slot, os.O_RDWR | os.O_CREAT)
        os.write(fd, safetensors.pack(self.model.start))
        self.expect(0, "a write pushed")
        os.fsync(fd)
        self.expect(1, "after an fsync")
        os.fsync(fd)
        self.expect(2, "after a second fsync with nothing changed")
        os.fdatasync(fd)
        self.expect(3, "after fdatasync")
        os.close(fd)
        self.expect(3, "close pushed")
        self.assertEqual(os.listdir(self.model.file("slots")), ["w0"])

    def test_new_bytes_in_a_slot_that_stays(self):
        expected = self.model.start
        fd = os.open(self.slot, os.O_RDWR | os.O_CREAT)
        for k in range(20):
            gradient = small_tensors(seed=k)
            os.pwrite(fd, safetensors.pack(gradient), 0)
            os.fsync(fd)
            expected = minus(expected, gradient)
            self.assertEqual(self.model.bits(), data_of(expected), f"after fsync {k}")
        os.close(fd)

    def test_bytes_may_be_used_again_when_fsync_returned(self):
        content = safetensors.pack(self.model.start)
        fd = os.open(self.slot, os.O_RDWR | os.O_CREAT)
        for _ in range(50):
            os.pwrite(fd, content, 0)
            os.fsync(fd)
            os.pwrite(fd, b"\xff" * len(content), 0)
        os.close(fd)
        self.expect(50, "what was written after fsync returned went in")

    def test_close_does_not_push(self):
        write_file(self.slot, safetensors.pack(self.model.start))
        time.sleep(0.3)
        self.expect(0, "close pushed")

    def test_rename_does_not_push(self):
        write_file(self.mnt("outside-slot"), safetensors.pack(self.model.start))
        os.rename(self.mnt("outside-slot"), self.slot)
        os.rename(self.slot, self.slot + "-renamed")
        write_file(self.model.file("slots", ".tmp"), safetensors.pack(self.model.start))
        os.rename(self.model.file("slots", ".tmp"), self.slot)
        time.sleep(0.3)
        self.expect(0, "rename pushed")
        for name in (self.slot, self.slot + "-renamed"):
            fd = os.open(name, os.O_RDWR)
            os.fsync(fd)
            os.close(fd)
        self.expect(2, "the renamed slots push at fsync")

    def test_msync_does_not_push(self):
        content = safetensors.pack(self.model.start)
        fd = os.open(self.slot, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, len(content))
        with mmap.mmap(fd, len(content)) as view:
            view[:] = content
            view.flush()
            # Without passthrough msync reaches the daemon as the very request that fsync sends.
            pushed = 0 if os.environ.get("GRADFS_PASSTHROUGH") != "off" else 1
            self.expect(pushed, "msync")
            os.fsync(fd)
            self.expect(pushed + 1, "fsync after a store through a map")
            view[:] = content
            os.fsync(fd)
            self.expect(pushed + 2, "fsync again")
        os.close(fd)
        self.expect(pushed + 2, "munmap or close pushed")

    def test_stores_through_a_map_are_in_the_push(self):
        expected = self.model.start
        content = safetensors.pack(self.model.start)
        fd = os.open(self.slot, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, len(content))
        with mmap.mmap(fd, len(content)) as view:
            for k in range(10):
                gradient = small_tensors(seed=k)
                view[:] = safetensors.pack(gradient)
                os.fsync(fd)
                expected = minus(expected, gradient)
                self.assertEqual(self.model.bits(), data_of(expected), f"after fsync {k}")
        os.close(fd)

    def test_a_copy_of_the_model_is_a_slot(self):
        shutil.copyfile(self.model.parameters, self.slot)
        fd = os.open(self.slot, os.O_RDWR)
        os.fsync(fd)
        os.close(fd)
        self.expect(1, "the slot's own values were pushed")
        done = subprocess.run(["cp", self.model.parameters, self.slot + "-2"], capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(read_file(self.slot + "-2"), read_file(self.model.parameters))

    def test_a_child_that_exits_does_not_push(self):
        fd = os.open(self.slot, os.O_RDWR | os.O_CREAT)
        os.write(fd, safetensors.pack(self.model.start))
        self.in_child(lambda: None)
        os.close(fd)
        time.sleep(0.3)
        self.expect(0, "an exit pushed")

    def test_slots_outlive_the_worker(self):
        fd = os.open(self.slot, os.O_RDWR | os.O_CREAT)
        os.write(fd, safetensors.pack(self.model.start))
        os.fsync(fd)
        self.cluster.kill9("worker-0")
        self.cluster.restart("worker-0")
        os.fsync(fd)
        os.close(fd)
        self.expect(2, "the same descriptor pushes after a restart")

    def test_two_workers_with_a_slot_each(self):
        def work(worker):
            content = safetensors.pack(self.model.start)
            fd = os.open(f"{self.slot}-{worker}", os.O_RDWR | os.O_CREAT)
            for _ in range(100):
                os.pwrite(fd, content, 0)
                os.fsync(fd)
            os.close(fd)

        children = [self.fork(work, worker) for worker in range(2)]
        self.assertEqual([child.wait(30) for child in children], [0, 0])
        self.expect(200, "two workers, 100 pushes each")


class Once(ClusterCase):
    """A repeat of run, worker and step is EEXIST, whichever way it comes."""

    def setUp(self):
        super().setUp()
        self.model = Model(self.cluster)
        self.model.push(self.model.start, run="r", worker="w", step=7)
        self.content = safetensors.pack(self.model.start, {"run": "r", "worker": "w", "step": "7"})

    def tearDown(self):
        time.sleep(0.1)
        self.assertEqual(self.model.bits(), data_of(minus(self.model.start, self.model.start)))
        self.assertEqual(int(self.model.status()["workers"]["w"]["last_step"]), 7)

    def test_close(self):
        for _ in range(2):
            with self.fails(errno.EEXIST):
                write_file(self.model.file("gradients", "again"), self.content)

    def test_rename(self):
        source = self.mnt(f"again-{self.model.name}")
        write_file(source, self.content)
        with self.fails(errno.EEXIST):
            os.rename(source, self.model.file("gradients", "again"))

    def test_fsync(self):
        fd = os.open(self.model.file("slots", "again"), os.O_RDWR | os.O_CREAT)
        os.write(fd, self.content)
        for _ in range(2):
            with self.fails(errno.EEXIST):
                os.fsync(fd)
        os.close(fd)

    def test_after_a_restart_of_all(self):
        for name in ("worker-0", "master"):
            self.cluster.kill9(name)
        self.cluster.up()
        with self.fails(errno.EEXIST):
            write_file(self.model.file("gradients", "again"), self.content)


class Steps(ClusterCase):
    def test_another_run_worker_or_step_counts(self):
        model = Model(self.cluster)
        keys = [("r", "w", 1), ("r", "w", 2), ("r", "v", 1), ("s", "w", 1), ("r", "w", 0)]
        for run, worker, step in keys:
            model.push(model.start, run=run, worker=worker, step=step)
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start, len(keys))))

    def test_a_refused_step_may_be_pushed_again(self):
        model = Model(self.cluster)
        bad = {"fc.bias": safetensors.f32([31], [float("nan")] * 31)}
        with self.fails(errno.EDOM):
            model.push(bad, run="r", worker="w", step=1)
        model.push(model.start, run="r", worker="w", step=1)
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start)))

    def test_without_keys_everything_counts(self):
        model = Model(self.cluster)
        for _ in range(3):
            model.push(model.start)
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start, 3)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
