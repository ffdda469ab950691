"""One gradfs cluster (master, worker, mount) in a folder of its own, driven only by fsctl and signals.

A Cluster owns its folder, its port and every process named by a pid file below it; destroy() frees all of it. Should
the test process die without that, a small watcher does it. Environment: GRADFS_BIN names the folder of the binaries,
GRADFS_PASSTHROUGH (on or off) the data path.
"""
import contextlib
import glob
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ.get("GRADFS_BIN") or os.path.join(HERE, "..", "..", "build", "release", "bin")
BIN = os.path.abspath(BIN)
PASSTHROUGH = os.environ.get("GRADFS_PASSTHROUGH", "on")
ROLES = ("master", "worker-0", "mount")


class Done:
    """What a finished command said."""

    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    def __str__(self):
        return f"{' '.join(map(str, self.args))}: exit {self.code}\nstdout: {self.out}\nstderr: {self.err}"


def run(args, env=None, timeout_s=60, cwd=None):
    """Runs a command to its end. Output goes through files: a daemon that keeps them open blocks nobody."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=cwd)
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            code = "timeout"
        out.seek(0)
        err.seek(0)
        return Done(args, code, out.read().decode(errors="replace"), err.read().decode(errors="replace"))


def free_port():
    """A port that no one has, below the ephemeral range: it stays free while its server is down."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        first_ephemeral = int(f.read().split()[0])
    for _ in range(100):
        port = random.randrange(8000, first_ephemeral)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


def alive(pid):
    """Whether a process runs; a zombie, whoever should have waited for it, does not."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_dead(pid, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def mounts_below(folder):
    """Mount points at or below a folder, deepest first, without touching them."""
    with open("/proc/self/mountinfo") as f:
        points = [line.split()[4].encode().decode("unicode_escape") for line in f]
    return sorted((p for p in points if p == folder or p.startswith(folder + "/")), key=len, reverse=True)


def read_pid(path):
    try:
        with open(path) as f:
            return int(f.read().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def is_ours(pid, folder):
    """Guards against a recycled pid: a gradfs process whose command line names this cluster."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            command = f.read()
        return b"gradfs-" in command and folder.encode() in command
    except OSError:
        return False


def clean_up(top):
    """Kills what runs below a cluster's folder, unmounts what is mounted there, and removes it."""
    for path in glob.glob(os.path.join(top, "dir", "*.pid")):
        pid = read_pid(path)
        if pid and alive(pid) and is_ours(pid, top):
            os.kill(pid, signal.SIGKILL)
            wait_dead(pid)
    for _ in range(5):
        points = mounts_below(top)
        for point in points:
            subprocess.run(["umount", "-l", point], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not points:
            break
    shutil.rmtree(top, ignore_errors=True)


class Cluster:
    """memory bounds the worker; passthrough is "on" or "off". The cluster is up when the constructor returns."""

    def __init__(self, memory="1GiB", passthrough=PASSTHROUGH, start=True):
        self.memory, self.passthrough = memory, passthrough
        self.top = os.path.realpath(tempfile.mkdtemp(prefix="gradfs-test-"))
        os.chmod(self.top, 0o755)
        self.dir = os.path.join(self.top, "dir")
        self.mnt = os.path.join(self.top, "mnt")
        self.scratch = os.path.join(self.top, "scratch")
        for folder in (self.dir, self.mnt, self.scratch):
            os.mkdir(folder)
        os.chmod(self.mnt, 0o755)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.env = dict(os.environ, GRADFS_MASTER=self.address)
        self.cache = {}
        self._watch()
        if start:
            try:
                self.up()
                os.chmod(self.mnt, 0o755)
                os.makedirs(self.path("models"), exist_ok=True)
            except BaseException as error:
                said = f"{error}\n{self.logs()}"
                self.destroy()
                raise RuntimeError(f"the cluster does not start: {said}") from None

    def _watch(self):
        read_end, self._write_end = os.pipe()
        subprocess.run(["setsid", "-f", sys.executable, "-B", os.path.abspath(__file__), self.top], stdin=read_end,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        os.close(read_end)

    def path(self, *names):
        return os.path.join(self.mnt, *names)

    def local(self, name):
        return os.path.join(self.scratch, name)

    def fsctl(self, *args, check=True, timeout_s=60):
        done = run([os.path.join(BIN, "fsctl"), *map(str, args)], env=self.env, timeout_s=timeout_s)
        if check and done.code != 0:
            raise RuntimeError(str(done))
        return done

    def up(self, check=True):
        """Starts what is not running; returns when the mount is usable."""
        return self.fsctl("cluster", "up", "--dir", self.dir, "--mount", self.mnt, "--memory", self.memory,
                          "--passthrough", self.passthrough, check=check)

    def restart(self, name):
        assert not self.running(name), f"{name} still runs"
        self.up()
        assert self.running(name), f"fsctl cluster up did not start {name}"

    def down(self, purge=False, check=True):
        more = ["--purge", "--yes"] if purge else []
        return self.fsctl("cluster", "down", "--dir", self.dir, *more, check=check)

    def pid(self, name):
        pid = read_pid(os.path.join(self.dir, f"{name}.pid"))
        assert pid, f"{self.dir}/{name}.pid holds no pid"
        return pid

    def running(self, name):
        pid = read_pid(os.path.join(self.dir, f"{name}.pid"))
        return bool(pid) and alive(pid) and is_ours(pid, self.top)

    def signal(self, name, number):
        os.kill(self.pid(name), number)

    def kill9(self, name):
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        assert wait_dead(pid), f"{name} survives SIGKILL"

    def abort(self):
        """Frees a test that is stuck in the mount: everything it waits for ends in an error."""
        for name in ("worker-0", "master"):
            if self.running(name):
                self.signal(name, signal.SIGCONT)
        if self.running("mount"):
            self.signal("mount", signal.SIGKILL)
        subprocess.run(["umount", "-f", "-l", self.mnt], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def logs(self, lines=30):
        said = []
        for path in sorted(glob.glob(os.path.join(self.dir, "*.log"))):
            with open(path, errors="replace") as f:
                said.append(f"--- {os.path.basename(path)}\n" + "".join(f.readlines()[-lines:]))
        return "\n".join(said)

    def destroy(self):
        for name in ROLES:
            if self.running(name):
                self.signal(name, signal.SIGCONT)
        if any(self.running(name) for name in ROLES):
            self.fsctl("cluster", "down", "--dir", self.dir, "--purge", "--yes", check=False, timeout_s=20)
        clean_up(self.top)
        if self._write_end >= 0:
            os.write(self._write_end, b"done")
            os.close(self._write_end)
            self._write_end = -1


if __name__ == "__main__":
    if sys.stdin.buffer.read() != b"done":
        clean_up(sys.argv[1])
