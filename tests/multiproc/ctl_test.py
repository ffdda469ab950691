"""fsctl: what it prints, how it fails, and how it starts and stops a cluster."""
import json
import os
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from case import ClusterCase, read_file, write_file
from cluster import BIN, ROLES, Cluster, alive, free_port, mounts_below, run, wait_dead
from model import Model

COMMANDS = (["cluster"], ["cluster", "up"], ["cluster", "down"], ["status"], ["ls"], ["stat"], ["model"],
            ["model", "create"], ["model", "info"], ["coproc"], ["coproc", "list"])

WRONG_USAGE = {
    "nothing": [],
    "unknown_command": ["no-such-command"],
    "unknown_subcommand": ["cluster", "sideways"],
    "unknown_option": ["status", "--no-such-option"],
    "no_subcommand": ["cluster"],
    "up_without_dir": ["cluster", "up", "--mount", "/tmp"],
    "down_without_dir": ["cluster", "down"],
    "create_without_path": ["model", "create"],
    "create_from_nothing": ["model", "create", "/models/x"],
    "create_from_two_things": ["model", "create", "/models/x", "--layers", "4,2", "--from", "/etc/hostname"],
    "create_with_bad_layers": ["model", "create", "/models/x", "--layers", "4,zwei"],
    "create_with_bad_rate": ["model", "create", "/models/x", "--layers", "4,2", "--lr", "fast"],
    "create_with_unknown_optimizer": ["model", "create", "/models/x", "--layers", "4,2", "--optimizer", "nope"],
    "stat_without_path": ["stat"],
}


def leaves(value):
    """Every scalar in a parsed JSON document."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


class Commands(ClusterCase):
    def fsctl(self, *args):
        return self.cluster.fsctl(*args, check=False)

    def test_help(self):
        self.assertIn("cluster", self.fsctl("--help").out)
        for command in COMMANDS:
            done = self.fsctl(*command, "--help")
            self.assertEqual(done.code, 0, str(done))
            self.assertIn(command[-1], done.out + done.err)

    def fails_with_a_line(self, *args):
        done = self.fsctl(*args)
        self.assertEqual(done.code, 1, str(done))
        self.assertEqual(len(done.err.splitlines()), 1, str(done))
        self.assertGreater(len(done.err), 20)
        self.assertEqual(done.out, "")
        return done.err

    def test_errors_are_one_line(self):
        self.assertIn("/nothing", self.fails_with_a_line("ls", "/nothing"))
        self.assertIn("/nothing", self.fails_with_a_line("stat", "/nothing"))
        self.assertIn("/nothing", self.fails_with_a_line("model", "info", "/nothing"))
        os.makedirs(self.mnt("no-model"), exist_ok=True)
        self.fails_with_a_line("model", "info", "/no-model")
        self.fails_with_a_line("model", "create", "/models/x", "--from", "/nothing.safetensors")
        self.fails_with_a_line("model", "create", "/models/x", "--from", "/etc/hostname")
        self.assertFalse(os.path.exists(self.mnt("models/x")))

    def test_no_master(self):
        env = dict(os.environ, GRADFS_MASTER=f"127.0.0.1:{free_port()}")
        for command in (["status"], ["ls", "/"], ["coproc", "list"], ["model", "create", "/x", "--layers", "4,2"]):
            start = time.monotonic()
            done = run([os.path.join(BIN, "fsctl"), *command], env=env, timeout_s=40)
            self.assertEqual((done.code, len(done.err.splitlines())), (1, 1), str(done))
            self.assertIn(env["GRADFS_MASTER"], done.err)
            self.assertLess(time.monotonic() - start, 30)

    def parsed(self, *args):
        done = self.cluster.fsctl(*args, "--json")
        return json.loads(done.out)

    def test_status(self):
        self.assertIn(self.cluster.address, self.cluster.fsctl("status").out)
        self.assertIsInstance(self.parsed("status"), dict)

    def test_status_without_a_worker(self):
        self.cluster.kill9("worker-0")
        try:
            self.parsed("status")
        finally:
            self.cluster.up()

    def test_ls(self):
        folder = self.fresh_dir()
        write_file(folder + "/file-one", b"12345")
        os.mkdir(folder + "/folder-two")
        os.symlink("file-one", folder + "/link-three")
        for path in (f"/{self._testMethodName}", folder, folder + "/"):
            text = self.cluster.fsctl("ls", path).out
            listed = self.parsed("ls", path)
            for name in ("file-one", "folder-two", "link-three"):
                self.assertIn(name, text)
                self.assertIn(name, leaves(listed))
        self.assertIn(self._testMethodName, self.cluster.fsctl("ls", "/").out)
        done = subprocess.run([os.path.join(BIN, "fsctl"), "ls", "."], cwd=folder, env=self.cluster.env, timeout=30,
                              capture_output=True, text=True)
        self.assertIn("file-one", done.stdout, done.stderr)

    def test_stat(self):
        folder = self.fresh_dir()
        write_file(folder + "/f", b"x" * 12345)
        by_path = self.parsed("stat", f"/{self._testMethodName}/f")
        by_mount = self.parsed("stat", folder + "/f")
        self.assertEqual(by_path, by_mount)
        self.assertIn(12345, leaves(by_path))
        self.assertIn("12345", self.cluster.fsctl("stat", folder + "/f").out.replace(",", ""))

    def test_model_info_and_coproc_list(self):
        model = Model(self.cluster)
        model.push(model.start)
        infos = [self.parsed("model", "info", path) for path in (model.path, model.dir)]
        self.assertEqual(infos[0]["version"], model.version())
        self.assertEqual(infos[0]["version"], infos[1]["version"])
        parameters = sum(len(tensor.data) for tensor in model.start.values())
        self.assertIn(parameters, leaves(infos[0]))
        text = self.cluster.fsctl("model", "info", model.path).out
        self.assertIn("sgd", text)
        self.assertIn(model.path, leaves(self.parsed("coproc", "list")))
        self.assertIn(model.path, self.cluster.fsctl("coproc", "list").out)

    def test_model_create_through_the_mount_path(self):
        self.cluster.fsctl("model", "create", self.mnt("models/by-mount"), "--layers", "4,2")
        self.assertTrue(os.path.isfile(self.mnt("models/by-mount/model.safetensors")))

    def test_up_twice_starts_nothing(self):
        before = [self.cluster.pid(name) for name in ROLES]
        start = time.monotonic()
        self.cluster.up()
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual([self.cluster.pid(name) for name in ROLES], before)
        self.assertTrue(all(map(alive, before)))

    def test_up_remembers_its_options(self):
        write_file(self.mnt("kept"), b"kept")
        self.cluster.down()
        self.cluster.fsctl("cluster", "up", "--dir", self.cluster.dir)
        self.assertEqual(read_file(self.mnt("kept")), b"kept")
        total = os.statvfs(self.cluster.mnt)
        self.assertLessEqual(total.f_blocks * total.f_frsize, 1 << 30)
        self.assertTrue(os.path.isfile(os.path.join(self.cluster.dir, "cluster.toml")))

    def test_up_starts_only_what_is_missing(self):
        for name in ROLES:
            others = {other: self.cluster.pid(other) for other in ROLES if other != name}
            old = self.cluster.pid(name)
            self.cluster.kill9(name)
            self.cluster.up()
            self.assertNotEqual(self.cluster.pid(name), old)
            self.assertEqual({other: self.cluster.pid(other) for other in others}, others)

    def test_up_with_a_stale_mount_point(self):
        write_file(self.mnt("f"), b"content")
        self.cluster.kill9("mount")
        with self.assertRaises(OSError):
            os.listdir(self.cluster.mnt)
        self.cluster.up()
        self.assertEqual(read_file(self.mnt("f")), b"content")
        self.assertEqual(len(mounts_below(self.cluster.mnt)), 1)

    def test_a_recycled_pid_is_not_taken_for_ours(self):
        self.cluster.down()
        stranger = subprocess.Popen(["sleep", "60"])
        try:
            for name in ROLES:
                with open(os.path.join(self.cluster.dir, f"{name}.pid"), "w") as f:
                    f.write(f"{stranger.pid}\n")
            self.cluster.up()
            self.assertNotIn(stranger.pid, [self.cluster.pid(name) for name in ROLES])
            self.cluster.down()
            self.assertIsNone(stranger.poll(), "a stranger was killed")
            self.cluster.up()
        finally:
            stranger.kill()
            stranger.wait()

    def test_up_does_not_hold_the_callers_output(self):
        self.cluster.down()
        done = subprocess.run([os.path.join(BIN, "fsctl"), "cluster", "up", "--dir", self.cluster.dir], timeout=30,
                              env=self.cluster.env, stdin=subprocess.DEVNULL, capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)


for _kind, _args in WRONG_USAGE.items():
    def _test(self, args=_args):
        done = self.fsctl(*args)
        self.assertEqual(done.code, 2, str(done))
        self.assertNotEqual(done.err.strip(), "")

    setattr(Commands, f"test_usage_{_kind}", _test)


class Life(unittest.TestCase):
    """Clusters of their own, because they end here."""

    def setUp(self):
        self.cluster = Cluster(memory="256MiB")
        self.addCleanup(self.cluster.destroy)
        self.pids = [self.cluster.pid(name) for name in ROLES]

    def below(self):
        return [point for point in mounts_below(self.cluster.dir)]

    def ended(self):
        self.assertEqual([alive(pid) for pid in self.pids], [False] * 3)
        self.assertEqual(mounts_below(self.cluster.mnt), [])

    def test_down_leaves_no_process_and_keeps_the_data(self):
        write_file(self.cluster.path("f"), b"x" * (32 << 20))
        done = self.cluster.down()
        self.ended()
        self.assertNotEqual((done.out + done.err).strip(), "", "down says how much memory it holds")
        self.assertNotEqual(self.below(), [], "the data is gone")
        self.cluster.down()
        self.cluster.up()
        self.assertEqual(os.stat(self.cluster.path("f")).st_size, 32 << 20)

    def test_purge_frees_the_memory(self):
        self.assertNotEqual(self.below(), [])
        write_file(self.cluster.path("f"), b"x" * (32 << 20))
        self.cluster.down(purge=True)
        self.ended()
        self.assertEqual(self.below(), [])

    def test_purge_after_down(self):
        self.cluster.down()
        self.cluster.down(purge=True)
        self.assertEqual(self.below(), [])

    def test_up_after_purge_is_empty(self):
        write_file(self.cluster.path("f"), b"x")
        self.cluster.down(purge=True)
        self.cluster.up()
        self.assertEqual(os.listdir(self.cluster.mnt), [])
        write_file(self.cluster.path("g"), b"y")
        self.assertEqual(read_file(self.cluster.path("g")), b"y")

    def test_down_after_everything_was_killed(self):
        for name in ("mount", "worker-0", "master"):
            self.cluster.kill9(name)
        self.cluster.down()
        self.ended()

    def test_down_with_a_process_in_the_mount(self):
        write_file(self.cluster.path("f"), b"x")
        with open(self.cluster.path("f"), "rb"):
            self.cluster.down(check=False)
        self.cluster.down()
        self.ended()

    def test_servers_end_cleanly_on_sigterm(self):
        for name in ("worker-0", "master"):
            self.cluster.signal(name, signal.SIGTERM)
            self.assertTrue(wait_dead(self.cluster.pid(name), 10), name)
        self.cluster.up()
        write_file(self.cluster.path("f"), b"x")

    def test_a_port_that_is_taken(self):
        other = Cluster(memory="256MiB", start=False)
        self.addCleanup(other.destroy)
        other.env = dict(self.cluster.env)
        done = other.up(check=False)
        self.assertEqual(done.code, 1, str(done))
        self.assertEqual(len(done.err.splitlines()), 1, str(done))
        self.assertEqual([other.running(name) for name in ROLES], [False] * 3)
        self.assertEqual(mounts_below(other.mnt), [])
        self.assertTrue(all(map(alive, self.pids)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
