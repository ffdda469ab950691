"""A process that kills itself at a named point of a push: every trainer goes on, and the model is, bit for bit, what a
serial program computes from the acknowledged gradients."""
import array
import errno
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import safetensors
from case import ClusterCase
from model import Model, data_of, minus, small_tensors
from trainers import TrainingCase

WORKER_POINTS = ["worker.commit.staged", "worker.commit.sent", "worker.commit.answered", "worker.apply.begin",
                 "worker.apply.done", "worker.retire.done"]
MASTER_POINTS = ["master.commit.begin", "master.commit.written"]


def restart_armed(cluster, name, faults):
    """The process anew, with a point at which it kills itself."""
    cluster.kill9(name)
    cluster.env["GRADFS_FAULTS"] = faults
    try:
        cluster.up(check=False)  # it may die before it is up
    finally:
        del cluster.env["GRADFS_FAULTS"]


class Training(TrainingCase):
    def kill_at(self, name, points, times):
        for point in points:
            for _ in range(times):
                self.busy()
                restart_armed(self.cluster, name, f"{point}=kill@{self.random.randint(1, 12)}")
                self.eventually(lambda: not self.cluster.running(name), f"{name} dies at {point}", 20)
                self.cluster.up()
        self.busy()
        self.finish()
        self.check_exact()

    def test_the_worker_dies_at_each_point(self):
        self.kill_at("worker-0", WORKER_POINTS, 2)

    def test_the_master_dies_at_each_point(self):
        self.kill_at("master", MASTER_POINTS, 3)


class Refusal(ClusterCase):
    """A slot's values are looked at while its commit is under way: the number is void, whoever is killed when."""

    def setUp(self):
        super().setUp()
        self.model = Model(self.cluster)

    def push(self, tensors, step, error=0):
        """In a process of its own: one that holds a file of the mount cannot start a master."""
        self.in_child(self.push_here, tensors, step, error)

    def push_here(self, tensors, step, error):
        content = safetensors.pack(tensors, {"run": "r", "worker": "w", "step": str(step)})
        slot = os.open(self.model.file("slots", "w"), os.O_RDWR | os.O_CREAT)
        os.pwrite(slot, content, 0)
        os.ftruncate(slot, len(content))
        if error:
            with self.fails(error):
                os.fsync(slot)
        else:
            os.fsync(slot)
        os.close(slot)

    def check(self, name, faults):
        good = small_tensors(5)
        bad = dict(good, head=safetensors.f32([1, 5, 3], array.array("f", [1.0] * 14 + [float("nan")])))
        before, version = self.model.bits(), self.model.version()
        if faults:
            restart_armed(self.cluster, name, faults)
            restarter = self.fork(self.restart_when_dead, name)
        self.push(bad, 1, errno.EDOM)
        if faults:
            self.assertEqual(restarter.wait(30), 0)  # it died
        self.assertTrue(self.model.bits() == before, "a refused gradient changed the model")
        self.assertEqual(self.model.version(), version)
        self.assertEqual(self.model.rejected(), ["w"])
        self.assertIn("head", self.model.reason("w"))
        self.push(good, 1)  # the step was not used up
        self.assertTrue(self.model.bits() == data_of(minus(self.model.start, good)), "not what was acknowledged")
        self.push(good, 1, errno.EEXIST)
        self.assertEqual(self.model.version(), version + 1)

    def restart_when_dead(self, name):
        self.eventually(lambda: not self.cluster.running(name), f"{name} dies", 20)
        self.cluster.up()

    def test_nobody_dies(self):
        self.check("worker-0", None)

    def test_dies_with_the_commit_on_its_way(self):
        self.check("worker-0", "worker.commit.sent=kill")

    def test_dies_with_the_answer(self):
        self.check("worker-0", "worker.commit.answered=kill")

    def test_dies_before_it_is_void(self):
        self.check("worker-0", "worker.apply.begin=kill")

    def test_dies_when_the_refusal_is_recorded(self):
        self.check("worker-0", "worker.refuse.recorded=kill")

    def test_the_master_dies_with_the_commit(self):
        for mutation in range(1, 5):  # some come from its start
            with self.subTest(mutation=mutation):
                self.model = Model(self.cluster)
                self.check("master", f"master.commit.written=kill@{mutation}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
