"""gradfs-train with each architecture, on a real mount: what they compute, and what they survive."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import numpy

from case import ClusterCase, read_file
from cluster import BIN, run

SYNCHRONOUS = ("broadcast", "storage", "allreduce")
WITH_SERVICE = {"broadcast": "train-driver", "storage": "train-driver", "paramserver": "train-server"}
GOES_ON = ("broadcast", "storage", "paramserver", "coprocessor")
ALL = ("broadcast", "storage", "paramserver", "coprocessor", "allreduce")
LAYERS = "28,64,2"
NAN = numpy.float32("nan")


def descendants(pid):
    """Every process below a pid, as (pid, name)."""
    found = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as f:
                children = [int(word) for word in f.read().split()]
        except OSError:
            continue
        for child in children:
            try:
                with open(f"/proc/{child}/comm") as f:
                    found.append((child, f.read().strip()))
            except OSError:
                continue
            found += descendants(child)
    return found


def listening_port(pid):
    """The TCP port on which a process listens."""
    sockets = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{name}")
        if target.startswith("socket:["):
            sockets.add(target[len("socket:["):-1])
    with open("/proc/net/tcp") as f:
        rows = [line.split() for line in f.readlines()[1:]]
    (port,) = {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in sockets}
    return port


class Training:
    """A run of gradfs-train under way."""

    def __init__(self, cluster, command):
        self.log = cluster.local("train.log")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=cluster.env)

    def process_named(self, name, timeout_s=20):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.process.poll() is None:
            for pid, comm in descendants(self.process.pid):
                if comm == name:
                    return pid
            time.sleep(0.02)
        raise AssertionError(f"no process {name}; the run said: {self.said()}")

    def said(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def wait(self, timeout_s=40):
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the run does not end in {timeout_s} s; it said: {self.said()}") from None


class Architectures(ClusterCase):
    limit_s = 150

    def model(self, architecture, name=None, optimizer="adam"):
        """A fresh model for an architecture; its directory on the mount."""
        name = f"/models/{name or architecture}-{self._testMethodName}"
        plain = [] if architecture == "coprocessor" else ["--plain"]
        self.cluster.fsctl("model", "create", name, "--layers", LAYERS, "--optimizer", optimizer, "--lr", "1e-3",
                           "--seed", "7", *plain)
        return self.mnt(name[1:])

    def command(self, architecture, model, *more, workers=2, seconds=None, epochs=None,
                data=("higgs", "--rows", "4000")):
        length = ["--max-seconds", str(seconds)] if seconds else ["--epochs", str(epochs or 2)]
        return [os.path.join(BIN, "gradfs-train"), "--architecture", architecture, "--model", model, "--dataset", *data,
                "--workers", str(workers), "--batch-size", "50", *length, "--seed", "3",
                "--report", self.cluster.local("report.json"), *more]

    def report(self):
        with open(self.cluster.local("report.json")) as f:
            return json.load(f)

    def train(self, architecture, *more, code=0, model=None, optimizer="adam", **options):
        model = model or self.model(architecture, optimizer=optimizer)
        done = run(self.command(architecture, model, *more, **options), env=self.cluster.env, timeout_s=60)
        self.assertEqual(done.code, code, str(done))
        return self.report(), model, done

    def parameters(self, model):
        content = read_file(os.path.join(model, "model.safetensors"))
        return content[8 + int.from_bytes(content[:8], "little"):]

    def assert_clean(self, model):
        """Nothing of the run is left in the directory."""
        names = set(os.listdir(model))
        self.assertEqual({name for name in names if name.startswith(".")}, set())
        for folder in names & {"gradients", "slots"}:
            self.assertEqual(os.listdir(os.path.join(model, folder)), [])

    def test_one_worker_gives_the_same_bits_everywhere(self):
        for optimizer in ("sgd", "adam", "lamb"):
            bits = {}
            for architecture in (*ALL, "local"):
                model = self.model(architecture, f"{architecture}-{optimizer}", optimizer)
                mine = [] if architecture == "coprocessor" else ["--optimizer", optimizer, "--lr", "1e-3"]
                report, _, _ = self.train(architecture, *mine, model=model, workers=1)
                self.assertEqual(report["gradients_applied"], 160, architecture)
                self.assertEqual(report["model_version"], 160, architecture)
                self.assertEqual(report["optimizer"], optimizer, architecture)
                bits[architecture] = self.parameters(model)
                self.assert_clean(model)
            different = [name for name in bits if bits[name] != bits["local"]]
            self.assertEqual(different, [], f"not what one process computes with {optimizer}")

    def test_the_mean_of_two_is_the_same_over_sockets_files_and_mpi(self):
        bits = set()
        for architecture in SYNCHRONOUS:
            report, model, _ = self.train(architecture)
            self.assertEqual(report["gradients_applied"], 160, architecture)
            self.assertEqual(report["model_version"], 80, architecture)
            bits.add(self.parameters(model))
        self.assertEqual(len(bits), 1, "broadcast, storage and allreduce differ")

    def test_a_report_says_what_it_cost(self):
        for architecture in (*ALL, "local"):
            workers = 1 if architecture == "local" else 2
            report, model, _ = self.train(architecture, workers=workers)
            size = len(self.parameters(model))
            self.assertEqual(report["architecture"], architecture)
            for times in (report["exchange_ms"], report["compute_ms"]):
                self.assertGreater(times["median"], 0, architecture)
                self.assertGreaterEqual(times["p99"], times["median"], architecture)
            self.assertGreater(report["cpu_seconds"], 0, architecture)
            through_files = architecture in ("storage", "coprocessor")
            self.assertEqual(report["server_cpu_seconds"] > 0, through_files, architecture)
            self.assertGreater(report["peak_memory_bytes"], size, architecture)
            self.assertGreater(report["updates_per_second"], 0, architecture)
            self.assertGreaterEqual(report["load_seconds"], 0, architecture)
            moved = {"local": 0, "coprocessor": 1, "allreduce": 1}.get(architecture, 2) * 160 * size
            self.assertLessEqual(abs(report["bytes_moved"] - moved), 2 * size, architecture)

    def test_a_killed_worker(self):
        for architecture in ALL:
            model = self.model(architecture)
            training = Training(self.cluster, self.command(architecture, model, seconds=3))
            victim = training.process_named("train-w1")
            time.sleep(1)
            os.kill(victim, signal.SIGKILL)
            code = training.wait()
            report = self.report()
            self.assertIn("Killed", training.said(), architecture)
            if architecture in GOES_ON:
                self.assertEqual(code, 0, training.said())
                self.assertEqual(report["workers_lost"], [1], architecture)
                self.assertGreater(report["train_seconds"], 2.5, architecture)
            else:
                self.assertEqual(code, 1, training.said())
                self.assertIn("allreduce cannot go on without it", training.said())
                self.assertLess(report["train_seconds"], 2.9, architecture)
            self.assertGreater(report["gradients_applied"], 0, architecture)
            self.assert_clean(model)

    def test_a_killed_driver_ends_the_run_and_says_so(self):
        for architecture, name in WITH_SERVICE.items():
            model = self.model(architecture)
            training = Training(self.cluster, self.command(architecture, model, seconds=60))
            victim = training.process_named(name)
            time.sleep(1)
            os.kill(victim, signal.SIGKILL)
            self.assertEqual(training.wait(30), 1, training.said())
            self.assertIn(f"the {name.removeprefix('train-')} was killed", training.said())
            self.assertGreater(self.report()["gradients_applied"], 0, architecture)
            self.assert_clean(model)

    def test_an_interrupt_ends_with_a_report_and_a_model(self):
        for architecture in ALL:
            model = self.model(architecture)
            before = self.parameters(model)
            training = Training(self.cluster, self.command(architecture, model, seconds=60))
            training.process_named("train-w1")
            time.sleep(1)
            training.process.send_signal(signal.SIGINT)
            self.assertEqual(training.wait(20), 128 + signal.SIGINT, training.said())
            report = self.report()
            self.assertTrue(report["interrupted"], architecture)
            self.assertEqual(report["workers_lost"], [], architecture)
            self.assertGreater(report["gradients_applied"], 0, architecture)
            self.assertNotEqual(self.parameters(model), before, f"{architecture}: what was learnt is lost")
            self.assert_clean(model)

    def test_nothing_is_left_when_the_run_is_killed(self):
        for architecture in ALL:
            model = self.model(architecture)
            training = Training(self.cluster, self.command(architecture, model, seconds=60))
            training.process_named("train-w1")
            pids = [pid for pid, _ in descendants(training.process.pid)]
            self.assertGreaterEqual(len(pids), 2)
            training.process.kill()
            training.wait()
            self.eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids),
                            f"{architecture}: its processes are gone", 10)

    def broken_data(self):
        """800 rows in .npy files, eight of them with a NaN."""
        folder = self.cluster.local("broken")
        os.makedirs(folder, exist_ok=True)
        random = numpy.random.default_rng(5)
        features = random.normal(size=(800, 28)).astype(numpy.float32)
        labels = (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(numpy.uint8)
        numpy.save(os.path.join(folder, "x_test.npy"), features[:200])
        numpy.save(os.path.join(folder, "y_test.npy"), labels[:200])
        features[::100, 3] = NAN
        numpy.save(os.path.join(folder, "x_train.npy"), features)
        numpy.save(os.path.join(folder, "y_train.npy"), labels)
        return "npy", "--data", folder

    def test_a_gradient_that_is_not_finite_is_refused_and_the_training_goes_on(self):
        data = self.broken_data()
        for architecture in (*ALL, "local"):
            workers = 1 if architecture == "local" else 2
            report, model, done = self.train(architecture, data=data, workers=workers, epochs=3)
            self.assertGreaterEqual(report["gradients_refused"], 3, architecture)
            self.assertLessEqual(report["gradients_refused"], 24, architecture)
            self.assertEqual(report["gradients_applied"] + report["gradients_refused"], 48, architecture)
            self.assertIn("not finite", done.err, architecture)
            self.assertIsNotNone(report["train_loss"], architecture)
            values = numpy.frombuffer(self.parameters(model), numpy.float32)
            self.assertTrue(numpy.isfinite(values).all(), f"{architecture}: the model is spoilt")
            self.assert_clean(model)

    def test_a_training_that_only_makes_nans_ends(self):
        folder = self.cluster.local("nothing")
        os.makedirs(folder, exist_ok=True)
        for part in ("train", "test"):
            numpy.save(os.path.join(folder, f"x_{part}.npy"), numpy.full((400, 28), NAN))
            numpy.save(os.path.join(folder, f"y_{part}.npy"), numpy.arange(400, dtype=numpy.uint8) % 2)
        for architecture in ("coprocessor", "broadcast"):
            report, _, done = self.train(architecture, data=("npy", "--data", folder), epochs=500, code=1)
            self.assertEqual(report["gradients_applied"], 0)
            self.assertIn("gradients in a row are not finite", done.err)

    def test_more_workers_than_partitions(self):
        for architecture in ALL:
            report, _, done = self.train(architecture, "--partitions", "2", workers=3)
            self.assertEqual(report["gradients_applied"], 160, architecture)
            self.assertEqual(report["workers_lost"], [], architecture)
            self.assertIn("1 of 3 workers have nothing to do", done.err, architecture)

    def test_strangers_at_the_port_change_nothing(self):
        for architecture in ("broadcast", "paramserver"):
            model = self.model(architecture)
            training = Training(self.cluster, self.command(architecture, model, seconds=3))
            port = listening_port(training.process_named(WITH_SERVICE[architecture]))
            training.process_named("train-w1")
            strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
            for stranger, said in zip(strangers, (b"", bytes(100), b"GET /", b"POST /gradient HTTP/1.1\r\n"
                                                  b"Content-Length: 1000000000000\r\nGradfs-Worker: 0\r\n"
                                                  b"Gradfs-Step: 999\r\n\r\n", os.urandom(5000))):
                stranger.sendall(said)
            self.assertEqual(training.wait(20), 0, training.said())
            report = self.report()
            self.assertEqual((report["workers_lost"], report["gradients_refused"]), ([], 0), architecture)
            self.assertGreater(report["test_accuracy"], 0.7, architecture)
            for stranger in strangers:
                stranger.close()
            self.assert_clean(model)

    def test_two_runs_cannot_share_a_stored_model(self):
        model = self.model("storage")
        first = Training(self.cluster, self.command("storage", model, seconds=60))
        first.process_named("train-w1")
        time.sleep(0.5)
        done = run(self.command("storage", model, seconds=3), env=self.cluster.env, timeout_s=60)
        self.assertEqual(first.wait(20), 1, first.said())
        self.assertIn("another program writes it too", first.said() + done.err)
        self.assertEqual([name for name in os.listdir(model) if name.endswith(".tmp")], [])

    def test_a_full_disk_under_the_report(self):
        disk = self.cluster.local("disk")
        os.makedirs(disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], check=True)
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        with open(os.path.join(disk, "filler"), "wb") as f:
            f.write(bytes(16 << 10))
        path = os.path.join(disk, "report.json")
        model = self.model("broadcast")
        done = run(self.command("broadcast", model, epochs=40)[:-1] + [path], env=self.cluster.env)
        self.assertNotEqual(done.code, 0, str(done))
        self.assertIn("no space left", done.err)
        self.assertIn(path, done.err)
        self.assertEqual(os.listdir(disk), ["filler"])
        self.assert_clean(model)

    def test_wrong_usage_is_one_line_and_2(self):
        model = self.model("coprocessor")
        wrong = (("telepathy", [], "no architecture 'telepathy'; there are broadcast, storage"),
                 ("local", [], "--workers 1"), ("broadcast", ["--lr", "-1"], "--lr must be"))
        for architecture, more, text in wrong:
            done = run(self.command(architecture, model, *more), env=self.cluster.env)
            self.assertEqual(done.code, 2, str(done))
            self.assertIn(text, done.err)
            self.assertEqual(done.err.count("\n"), 1, done.err)

    def test_a_step_that_somebody_else_takes_is_refused(self):
        model = self.model("coprocessor")
        done = run(self.command("coprocessor", model, "--lr", "0.1"), env=self.cluster.env)
        self.assertEqual(done.code, 1, str(done))
        self.assertIn("descent.toml", done.err)
        done = run(self.command("storage", model), env=self.cluster.env)
        self.assertEqual(done.code, 1, str(done))
        self.assertIn("--plain", done.err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
