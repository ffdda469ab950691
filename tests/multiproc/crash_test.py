"""kill -9 of any process in the middle of training: no trainer sees an error, and the model is, bit for bit, what a
serial program computes from the acknowledged gradients (integers in F32). GRADFS_TEST_SEED repeats a run."""
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import pusher
from case import ClusterCase
from model import Model, data_of

SEED = int(os.environ.get("GRADFS_TEST_SEED", "20240607"))


class Trainer:
    """A pusher process and the steps that it was told are done."""

    def __init__(self, cluster, model, way, worker):
        self.model, self.way, self.worker = model, way, worker
        self.acks = cluster.local(f"{model.name}.{worker}.acks")
        self.stop = cluster.local(f"{model.name}.stop")
        self.errors = self.acks + ".stderr"
        self.start()

    def start(self):
        """From the step after the last acknowledged; that one may have counted before."""
        command = [sys.executable, "-B", pusher.__file__, self.model.dir, self.way, str(self.worker),
                   str(len(self.done())), self.acks, self.stop, *(["--again"] if os.path.exists(self.acks) else [])]
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)

    def done(self):
        try:
            with open(self.acks) as f:
                return [int(line) for line in f.read().splitlines()]
        except FileNotFoundError:
            return []

    def said(self):
        with open(self.errors, errors="replace") as f:
            return f.read()


class Crash(ClusterCase):
    limit_s = 100

    def setUp(self):
        super().setUp()
        print(f"{self._testMethodName}: seed {SEED}", file=sys.stderr, flush=True)
        self.random = random.Random(f"{SEED} {self._testMethodName}")
        self.model = Model(self.cluster, pusher.tensors([0.0] * pusher.PERIOD))
        self.first = self.model.version()
        self.trainers = [Trainer(self.cluster, self.model, way, worker)
                         for worker, way in enumerate(("file", "slot", "file", "slot"))]
        self.addCleanup(self.end_trainers)

    def end_trainers(self):
        for trainer in self.trainers:
            trainer.process.kill()
        with contextlib.suppress(RuntimeError):
            self.cluster.up()
        for trainer in self.trainers:
            trainer.process.wait(20)

    def busy(self, trainers=None):
        """Waits until every trainer has made progress since now."""
        trainers = trainers or self.trainers
        before = [len(trainer.done()) for trainer in trainers]

        def moved():
            for trainer in trainers:
                self.assertIsNone(trainer.process.poll(), f"trainer {trainer.worker} ended: {trainer.said()}")
            return all(len(trainer.done()) > count for trainer, count in zip(trainers, before))

        self.eventually(moved, "every trainer goes on", 30)

    def finish(self):
        with open(self.trainers[0].stop, "w"):
            pass
        for trainer in self.trainers:
            self.assertEqual(trainer.process.wait(40), 0, trainer.said())
            self.assertEqual(trainer.said(), "")

    def sum_of(self, steps_of_workers):
        total = [0.0] * pusher.PERIOD
        for worker, steps in steps_of_workers:
            for step in steps:
                total = [a - b for a, b in zip(total, pusher.pattern(worker, step))]
        return data_of(pusher.tensors(total))

    def check_exact(self, again=False):
        """again: trainers were started anew, so repeats may stand in rejected/, and what they left in gradients/."""
        steps = [(trainer.worker, trainer.done()) for trainer in self.trainers]
        for worker, done in steps:
            self.assertEqual(done, list(range(len(done))))
            self.assertGreater(len(done), 1)
        self.assertEqual(self.model.bits(), self.sum_of(steps), "not what a serial program computes")
        self.assertEqual(self.model.version(), self.first + sum(len(done) for _, done in steps))
        status = self.model.status()["workers"]
        self.assertEqual({worker: int(seen["last_step"]) for worker, seen in status.items()},
                         {f"w{worker}": done[-1] for worker, done in steps})
        if not again:
            self.assertEqual(self.model.rejected(), [])
            self.assertEqual(os.listdir(self.model.file("gradients")), [])
        print(f"{self._testMethodName}: {sum(len(done) for _, done in steps)} gradients", file=sys.stderr, flush=True)

    def train_and_kill(self, rounds, *names):
        for _ in range(rounds):
            self.busy()
            time.sleep(self.random.uniform(0, 0.15))
            for name in self.random.sample(names, len(names)):
                self.cluster.kill9(name)
            time.sleep(self.random.uniform(0, 0.5))
            self.cluster.up()
        self.busy()
        self.finish()
        self.check_exact()

    def test_nothing_is_killed(self):
        for _ in range(3):
            self.busy()
        self.finish()
        self.check_exact()

    def test_the_worker_is_killed(self):
        self.train_and_kill(6, "worker-0")

    def test_the_master_is_killed(self):
        self.train_and_kill(6, "master")

    def test_both_are_killed(self):
        self.train_and_kill(5, "worker-0", "master")

    def test_the_worker_is_killed_while_it_recovers(self):
        self.busy()
        for _ in range(4):
            self.cluster.kill9("worker-0")
            self.cluster.up()
            time.sleep(self.random.uniform(0, 0.01))
        self.busy()
        self.finish()
        self.check_exact()

    def test_trainers_are_killed_and_go_on(self):
        """A trainer that starts again from its own notes pushes its last step once more: EEXIST if it had counted."""
        for _ in range(5):
            self.busy()
            time.sleep(self.random.uniform(0, 0.05))
            for trainer in self.random.sample(self.trainers, 2):
                trainer.process.kill()
                self.assertEqual(trainer.process.wait(2), -signal.SIGKILL)
                trainer.start()
        self.busy()
        self.finish()
        self.check_exact(again=True)

    def test_killed_trainers_leave_whole_gradients(self):
        """What is in the model: everything acknowledged, and of each killed trainer the one in flight or not."""
        self.busy()
        time.sleep(self.random.uniform(0, 0.1))
        for trainer in self.trainers:
            trainer.process.kill()
        for trainer in self.trainers:
            self.assertEqual(trainer.process.wait(2), -signal.SIGKILL)
        time.sleep(1)
        seen = self.model.bits()
        done = [(trainer.worker, trainer.done()) for trainer in self.trainers]
        for more in itertools.product((0, 1), repeat=len(done)):
            if seen == self.sum_of((worker, list(range(len(steps) + one))) for (worker, steps), one in zip(done, more)):
                break
        else:
            self.fail(f"the model is no sum of whole gradients; acknowledged: {[len(steps) for _, steps in done]}")
        self.assertEqual(self.model.version(), self.first + sum(len(steps) for _, steps in done) + sum(more))

    def test_everything_is_killed(self):
        """Master, worker and trainers, in any order; who starts again goes on where it was."""
        for _ in range(4):
            self.busy()
            time.sleep(self.random.uniform(0, 0.1))
            victims = ["master", "worker-0", self.trainers[0], self.trainers[1]]
            self.random.shuffle(victims)
            for victim in victims:
                if isinstance(victim, str):
                    self.cluster.kill9(victim)
                else:
                    victim.process.kill()
                    self.assertEqual(victim.process.wait(2), -signal.SIGKILL)
            self.cluster.up()
            for trainer in self.trainers[:2]:
                trainer.start()
        self.busy()
        self.finish()
        self.check_exact(again=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
