"""What is no gradient is refused: close, rename or fsync of a slot fails with the right errno, the model keeps every
bit, and the file stands in rejected/ with its reason. One test for each bad file and each way in."""
import errno
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import safetensors
from badfiles import bad_files
from case import ClusterCase, read_file, write_all, write_file
from model import Model, data_of, minus, small_tensors

KINDS = bad_files(small_tensors(seed=3))


class Refused(ClusterCase):
    """Tests share a model as long as they succeed: none of them may change it."""

    limit_s = 30

    def setUp(self):
        super().setUp()
        if "model" not in self.cluster.cache:
            self.cluster.cache["model"] = Model(self.cluster)
        self.model = self.cluster.cache["model"]
        self.version = self.model.version()

    def check(self, name, content):
        self.assertEqual(self.model.bits(), data_of(self.model.start), "the model changed")
        self.assertEqual(self.model.version(), self.version)
        self.assertNotEqual(self.model.reason(name).strip(), "")
        self.assertEqual(read_file(self.model.file("rejected", name)), content)

    def by_close(self, kind):
        content, code = KINDS[kind]
        name = f"{kind}.close"
        fd = os.open(self.model.file("gradients", name), os.O_WRONLY | os.O_CREAT, 0o644)
        write_all(fd, content)
        with self.fails(code):
            os.close(fd)
        self.check(name, content)
        self.assertEqual(os.listdir(self.model.file("gradients")), [])

    def by_rename(self, kind):
        content, code = KINDS[kind]
        name = f"{kind}.rename"
        source = self.mnt(name)
        write_file(source, content)
        with self.fails(code):
            os.rename(source, self.model.file("gradients", name))
        self.check(name, content)
        self.assertEqual(os.listdir(self.model.file("gradients")), [])
        self.assertEqual(read_file(source), content, "a refused rename leaves its source")
        os.unlink(source)

    def by_fsync(self, kind):
        content, code = KINDS[kind]
        name = f"{kind}.fsync"
        fd = os.open(self.model.file("slots", name), os.O_RDWR | os.O_CREAT, 0o644)
        write_all(fd, content)
        with self.fails(code):
            os.fsync(fd)
        os.close(fd)
        self.check(name, content)
        self.assertEqual(read_file(self.model.file("slots", name)), content, "a slot stays")
        os.unlink(self.model.file("slots", name))


for _kind in KINDS:
    for _way in ("close", "rename", "fsync"):
        def _test(self, kind=_kind, way=_way):
            getattr(self, f"by_{way}")(kind)

        setattr(Refused, f"test_{_kind}_by_{_way}", _test)


class Rejected(ClusterCase):
    def setUp(self):
        super().setUp()
        self.model = Model(self.cluster)

    def refuse(self, name, content):
        with self.fails(errno.EINVAL):
            write_file(self.model.file("gradients", name), content)

    def test_an_older_one_becomes_name_1(self):
        self.refuse("g", b"the first")
        self.assertEqual(self.model.rejected(), ["g"])
        self.refuse("g", b"the second")
        self.assertEqual(self.model.rejected(), ["g", "g~1"])
        self.assertEqual(read_file(self.model.file("rejected", "g")), b"the second")
        self.assertEqual(read_file(self.model.file("rejected", "g~1")), b"the first")
        for name in ("g", "g~1"):
            self.assertNotEqual(self.model.reason(name), "")

    def test_the_reason_names_what_is_wrong(self):
        wrong = {**small_tensors(), "no.such.tensor": safetensors.f32([1], [1])}
        self.refuse("g", safetensors.pack(wrong))
        self.assertIn("no.such.tensor", self.model.reason("g"))
        self.assertNotIn("\n", self.model.reason("g").strip())

    def test_a_good_push_follows_a_refused_one(self):
        self.refuse("g", b"bad")
        self.model.push(self.model.start, name="g")
        self.assertEqual(self.model.bits(), data_of(minus(self.model.start, self.model.start)))
        self.assertEqual(self.model.rejected(), ["g"])

    def test_a_repaired_slot_pushes(self):
        fd = os.open(self.model.file("slots", "w0"), os.O_RDWR | os.O_CREAT)
        os.write(fd, b"bad")
        with self.fails(errno.EINVAL):
            os.fsync(fd)
        os.pwrite(fd, safetensors.pack(self.model.start), 0)
        os.fsync(fd)
        os.close(fd)
        self.assertEqual(self.model.bits(), data_of(minus(self.model.start, self.model.start)))

    def test_a_refused_slot_does_not_change_what_was_rejected(self):
        fd = os.open(self.model.file("slots", "w0"), os.O_RDWR | os.O_CREAT)
        os.write(fd, b"bad at first")
        with self.fails(errno.EINVAL):
            os.fsync(fd)
        os.pwrite(fd, b"now different", 0)
        os.close(fd)
        self.assertEqual(read_file(self.model.file("rejected", "w0")), b"bad at first")

    def test_rejected_files_may_be_deleted(self):
        self.refuse("g", b"bad")
        os.unlink(self.model.file("rejected", "g"))
        self.assertEqual(self.model.rejected(), [])

    def test_a_refused_file_may_be_repaired_and_pushed(self):
        good = safetensors.pack(self.model.start)
        self.refuse("g", good[:-4])
        with open(self.model.file("rejected", "g"), "ab") as f:
            f.write(good[-4:])
        os.rename(self.model.file("rejected", "g"), self.model.file("gradients", "g"))
        expected = data_of(minus(self.model.start, self.model.start))
        self.eventually(lambda: self.model.bits() == expected, "the repaired file lands")

    def test_rejected_files_outlive_a_restart(self):
        self.refuse("g", b"bad content")
        for name in ("worker-0", "master"):
            self.cluster.kill9(name)
        self.cluster.up()
        self.assertEqual(read_file(self.model.file("rejected", "g")), b"bad content")
        self.assertNotEqual(self.model.reason("g"), "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
