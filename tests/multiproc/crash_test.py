"""kill -9 of any process in the middle of training: no trainer sees an error, and the model is, bit for bit, what a
serial program computes from the acknowledged gradients (integers in F32). GRADFS_TEST_SEED repeats a run."""
import itertools
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from trainers import TrainingCase


class Crash(TrainingCase):
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
            self.cluster.up()
            # With the master away, one may have waited in the kernel for the other's create in gradients/.
            for trainer in self.trainers[:2]:
                self.assertEqual(trainer.process.wait(2), -signal.SIGKILL)
            for trainer in self.trainers[:2]:
                trainer.start()
        self.busy()
        self.finish()
        self.check_exact(again=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
