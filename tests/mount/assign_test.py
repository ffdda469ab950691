"""Writing over model.safetensors assigns: a new version at once, under the eyes of who maps the model."""
import errno
import mmap
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import safetensors
from badfiles import bad_files
from case import ClusterCase, read_file, write_all, write_file
from model import Model, data_of, minus, small_tensors

BAD = ("empty", "truncated_header", "truncated_data", "header_length_2_63", "wrong_name", "wrong_shape", "random_bytes",
       "pickle", "wrong_dtype_f64", "offsets_overlap")


class Assign(ClusterCase):
    def setUp(self):
        super().setUp()
        self.model = Model(self.cluster)
        self.new = small_tensors(seed=77)
        self.version = self.model.version()
        with open(self.model.parameters, "rb") as f:
            self.view = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        self.addCleanup(self.view.close)

    def expect(self, tensors, more_versions):
        # Not assertEqual: its diff of a model takes minutes.
        self.assertTrue(self.model.bits() == data_of(tensors), "the model differs")
        mapped = data_of(safetensors.unpack(self.view[:]).tensors)
        self.assertTrue(mapped == data_of(tensors), "the old map differs")
        self.assertEqual(self.model.version(), self.version + more_versions)
        self.assertEqual(self.model.status()["version"], self.version + more_versions)
        self.assertEqual(safetensors.read(self.model.parameters).data_start % 4096, 0)

    def source(self):
        path = self.cluster.local(f"{self.model.name}.new")
        safetensors.write(path, self.new)
        return path

    def test_cp(self):
        done = subprocess.run(["cp", self.source(), self.model.parameters], capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.expect(self.new, 1)
        self.model.push(self.new)
        self.expect(minus(self.new, self.new), 2)

    def test_a_shells_redirection(self):
        done = subprocess.run(["bash", "-c", 'cat "$0" > "$1"', self.source(), self.model.parameters],
                              capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.eventually(lambda: self.model.bits() == data_of(self.new), "the model is assigned")
        self.expect(self.new, 1)

    def test_a_copy_of_another_model(self):
        other = Model(self.cluster, self.new)
        done = subprocess.run(["cp", other.parameters, self.model.parameters], capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.expect(self.new, 1)

    def test_rename_over(self):
        for k, place in enumerate((self.model.file("new.safetensors"), self.mnt(f"new-{self.model.name}"))):
            tensors = small_tensors(seed=500 + k)
            safetensors.write(place, tensors)
            os.rename(place, self.model.parameters)
            self.eventually(lambda t=tensors: self.model.bits() == data_of(t), "the model is assigned")
            self.expect(tensors, k + 1)
            self.assertFalse(os.path.exists(place))

    def test_nothing_changes_before_the_close(self):
        content = safetensors.pack(self.new)
        fd = os.open(self.model.parameters, os.O_WRONLY | os.O_TRUNC)
        self.expect(self.model.start, 0)
        write_all(fd, content[:2000])
        self.expect(self.model.start, 0)
        self.model.push(self.model.start)
        self.expect(minus(self.model.start, self.model.start), 1)
        write_all(fd, content[2000:])
        self.expect(minus(self.model.start, self.model.start), 1)
        os.close(fd)
        self.expect(self.new, 2)

    def test_the_file_is_never_short(self):
        """A reader that maps and reads all the time never meets a short model, a missing one, or SIGBUS."""
        size = os.stat(self.model.parameters).st_size
        source = self.source()
        listen, note = os.pipe()

        def read_on():
            os.close(note)
            os.set_blocking(listen, False)
            while True:
                assert os.stat(self.model.parameters).st_size == size
                assert len(read_file(self.model.parameters)) == size
                with open(self.model.parameters, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as view:
                    assert len(view) == size
                    sum(view[::512])
                sum(self.view[::512])
                try:
                    if os.read(listen, 1) == b"":
                        return
                except BlockingIOError:
                    pass

        child = self.fork(read_on)
        for k in range(30):
            write_file(self.model.parameters, read_file(source))
        os.close(note)
        self.assertEqual(child.wait(10), 0)
        os.close(listen)
        self.expect(self.new, 30)

    def test_an_abandoned_assign_changes_nothing(self):
        """Whoever is killed while it writes over the model has not assigned, though all of it was written."""
        content = safetensors.pack(self.new)
        ready, note = os.pipe()

        def write_and_wait():
            fd = os.open(self.model.parameters, os.O_WRONLY | os.O_TRUNC)
            write_all(fd, content)
            os.write(note, b"w")
            time.sleep(60)

        child = self.fork(write_and_wait)
        self.assertEqual(os.read(ready, 1), b"w")
        child.kill()
        self.assertEqual(child.wait(5), -9)
        time.sleep(0.5)
        self.expect(self.model.start, 0)

    def test_optimizer_state_stays(self):
        model = Model(self.cluster, optimizer="momentum", lr=1.0)
        model.push(model.start)
        before = data_of(safetensors.read(model.file("optimizer.safetensors")).tensors)
        write_file(model.parameters, safetensors.pack(self.new))
        self.assertEqual(model.bits(), data_of(self.new))
        self.assertEqual(data_of(safetensors.read(model.file("optimizer.safetensors")).tensors), before)
        self.assertTrue(any(any(content) for content in before.values()))

    def test_an_assign_outlives_a_restart(self):
        write_file(self.model.parameters, safetensors.pack(self.new))
        for name in ("worker-0", "master"):
            self.cluster.kill9(name)
        self.cluster.up()
        self.expect(self.new, 1)

    def test_the_model_cannot_be_truncated(self):
        with self.fails(errno.EACCES, errno.EPERM, errno.EINVAL):
            os.truncate(self.model.parameters, 100)
        self.expect(self.model.start, 0)

    def refuse(self, kind, way):
        content = bad_files(self.new)[kind][0]
        if way == "close":
            fd = os.open(self.model.parameters, os.O_WRONLY | os.O_TRUNC)
            write_all(fd, content)
            with self.fails(errno.EINVAL):
                os.close(fd)
        else:
            source = self.model.file("bad.safetensors")
            write_file(source, content)
            with self.fails(errno.EINVAL):
                os.rename(source, self.model.parameters)
        self.expect(self.model.start, 0)
        write_file(self.model.parameters, safetensors.pack(self.new))
        self.expect(self.new, 1)


for _kind in BAD:
    for _way in ("close", "rename"):
        def _test(self, kind=_kind, way=_way):
            self.refuse(kind, way)

        setattr(Assign, f"test_{_kind}_by_{_way}", _test)


if __name__ == "__main__":
    unittest.main(verbosity=2)
