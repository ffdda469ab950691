"""A mount is a filesystem: files, folders, names and their errors."""
import errno
import os
import stat
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from case import ClusterCase, read_file, write_file


class Files(ClusterCase):
    def test_create_write_read(self):
        path = os.path.join(self.fresh_dir(), "f")
        content = bytes(range(256)) * 5000
        write_file(path, content)
        self.assertEqual(read_file(path), content)
        self.assertEqual(os.stat(path).st_size, len(content))
        with open(path, "rb") as f:
            self.assertEqual(os.pread(f.fileno(), 100, 1000), content[1000:1100])
            self.assertEqual(os.pread(f.fileno(), 100, len(content) - 10), content[-10:])
            self.assertEqual(os.pread(f.fileno(), 100, len(content) + 10), b"")

    def test_overwrite_in_the_middle(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"a" * 10000)
        fd = os.open(path, os.O_RDWR)
        self.assertEqual(os.pwrite(fd, b"bbb", 4095), 3)
        self.assertEqual(os.pread(fd, 5, 4094), b"abbba")
        os.close(fd)
        self.assertEqual(read_file(path), b"a" * 4095 + b"bbb" + b"a" * 5902)

    def test_missing_file(self):
        folder = self.fresh_dir()
        for call in (os.stat, os.unlink, os.rmdir, os.listdir, os.readlink):
            with self.fails(errno.ENOENT):
                call(os.path.join(folder, "nothing"))
        with self.fails(errno.ENOENT):
            os.open(os.path.join(folder, "nothing"), os.O_RDONLY)
        with self.fails(errno.ENOENT):
            os.open(os.path.join(folder, "no", "f"), os.O_WRONLY | os.O_CREAT)

    def test_append(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"one")
        with open(path, "ab") as f:
            f.write(b"two")
        first, second = (os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
        for k in range(100):
            os.write((first, second)[k % 2], b"%02d" % k)
        os.close(first)
        os.close(second)
        self.assertEqual(read_file(path), b"onetwo" + b"".join(b"%02d" % k for k in range(100)))

    def test_truncate_down_and_up(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"x" * 9000)
        os.truncate(path, 5000)
        self.assertEqual(read_file(path), b"x" * 5000)
        os.truncate(path, 20000)
        self.assertEqual(os.stat(path).st_size, 20000)
        self.assertEqual(read_file(path), b"x" * 5000 + bytes(15000))
        with open(path, "r+b") as f:
            f.truncate(3)
            self.assertEqual(os.fstat(f.fileno()).st_size, 3)
        self.assertEqual(read_file(path), b"xxx")
        with open(path, "wb"):
            pass
        self.assertEqual(os.stat(path).st_size, 0)

    def test_sparse_reads_as_zeros(self):
        path = os.path.join(self.fresh_dir(), "f")
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"end", 50 << 20)
        self.assertEqual(os.fstat(fd).st_size, (50 << 20) + 3)
        self.assertEqual(os.pread(fd, 8192, 10 << 20), bytes(8192))
        os.close(fd)
        self.assertEqual(os.stat(path).st_size, (50 << 20) + 3)
        self.assertLess(os.stat(path).st_blocks * 512, 8 << 20)

    def test_exclusive_create(self):
        path = os.path.join(self.fresh_dir(), "f")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        with self.fails(errno.EEXIST):
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def test_unlink(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"x")
        os.unlink(path)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(os.listdir(os.path.dirname(path)), [])

    def test_an_unlinked_open_file_goes_on(self):
        path = os.path.join(self.fresh_dir(), "f")
        write_file(path, b"before")
        fd = os.open(path, os.O_RDWR)
        os.unlink(path)
        self.assertEqual(os.pread(fd, 10, 0), b"before")
        os.pwrite(fd, b"after ", 0)
        time.sleep(0.3)
        self.assertEqual(os.pread(fd, 10, 0), b"after ")
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        write_file(path, b"another")
        self.assertEqual(os.pread(fd, 10, 0), b"after ")
        os.close(fd)
        self.assertEqual(read_file(path), b"another")

    def test_a_replaced_open_file_goes_on(self):
        folder = self.fresh_dir()
        write_file(folder + "/old", b"old content")
        write_file(folder + "/new", b"new content")
        with open(folder + "/old", "rb") as f:
            os.rename(folder + "/new", folder + "/old")
            self.assertEqual(f.read(), b"old content")
        self.assertEqual(read_file(folder + "/old"), b"new content")

    def test_fsync(self):
        path = os.path.join(self.fresh_dir(), "f")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"data")
        os.fsync(fd)
        os.fdatasync(fd)
        os.close(fd)
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
        self.assertEqual(read_file(path), b"data")

    def test_kinds_are_kept_apart(self):
        folder = self.fresh_dir()
        write_file(folder + "/f", b"")
        with self.fails(errno.ENOTDIR):
            os.stat(folder + "/f/below")
        with self.fails(errno.ENOTDIR):
            os.rmdir(folder + "/f")
        with self.fails(errno.EISDIR):
            os.open(folder, os.O_WRONLY)
        with self.fails(errno.EISDIR, errno.EPERM):
            os.unlink(folder)


class Folders(ClusterCase):
    def test_mkdir_rmdir(self):
        folder = self.fresh_dir()
        os.mkdir(folder + "/d")
        with self.fails(errno.EEXIST):
            os.mkdir(folder + "/d")
        write_file(folder + "/d/f", b"x")
        with self.fails(errno.ENOTEMPTY):
            os.rmdir(folder + "/d")
        os.unlink(folder + "/d/f")
        os.rmdir(folder + "/d")
        self.assertEqual(os.listdir(folder), [])

    def test_links_of_a_folder_count_its_folders(self):
        folder = self.fresh_dir()
        self.assertTrue(stat.S_ISDIR(os.stat(folder).st_mode))
        before = os.stat(folder).st_nlink
        os.mkdir(folder + "/d")
        self.assertIn(os.stat(folder).st_nlink, (1, before + 1))

    def test_rename(self):
        folder = self.fresh_dir()
        write_file(folder + "/a", b"content")
        inode = os.stat(folder + "/a").st_ino
        os.mkdir(folder + "/d")
        os.rename(folder + "/a", folder + "/d/b")
        self.assertFalse(os.path.exists(folder + "/a"))
        self.assertEqual(read_file(folder + "/d/b"), b"content")
        self.assertEqual(os.stat(folder + "/d/b").st_ino, inode)
        os.rename(folder + "/d", folder + "/e")
        self.assertEqual(sorted(os.listdir(folder)), ["e"])
        self.assertEqual(read_file(folder + "/e/b"), b"content")

    def test_rename_over_a_file(self):
        folder = self.fresh_dir()
        write_file(folder + "/a", b"aaa")
        write_file(folder + "/b", b"bb")
        os.rename(folder + "/a", folder + "/b")
        self.assertEqual(os.listdir(folder), ["b"])
        self.assertEqual(read_file(folder + "/b"), b"aaa")

    def test_rename_over_folders(self):
        folder = self.fresh_dir()
        os.mkdir(folder + "/a")
        os.mkdir(folder + "/full")
        os.mkdir(folder + "/empty")
        write_file(folder + "/full/f", b"")
        with self.fails(errno.ENOTEMPTY, errno.EEXIST):
            os.rename(folder + "/a", folder + "/full")
        os.rename(folder + "/a", folder + "/empty")
        self.assertEqual(sorted(os.listdir(folder)), ["empty", "full"])

    def test_rename_of_kinds_that_do_not_fit(self):
        folder = self.fresh_dir()
        os.mkdir(folder + "/d")
        write_file(folder + "/f", b"f")
        with self.fails(errno.EISDIR):
            os.rename(folder + "/f", folder + "/d")
        with self.fails(errno.ENOTDIR):
            os.rename(folder + "/d", folder + "/f")
        with self.fails(errno.ENOENT):
            os.rename(folder + "/nothing", folder + "/f")
        self.assertEqual(sorted(os.listdir(folder)), ["d", "f"])
        self.assertEqual(read_file(folder + "/f"), b"f")

    def test_rename_into_its_own_subtree(self):
        folder = self.fresh_dir()
        os.makedirs(folder + "/d/e/g")
        with self.fails(errno.EINVAL):
            os.rename(folder + "/d", folder + "/d/e/g/d")
        with self.fails(errno.EINVAL):
            os.rename(folder + "/d", folder + "/d/e")
        self.assertTrue(os.path.isdir(folder + "/d/e/g"))

    def test_rename_changes_what_others_look_up(self):
        folder = self.fresh_dir()
        write_file(folder + "/a", b"1")

        def rename():
            os.rename(folder + "/a", folder + "/b")

        self.assertTrue(os.path.exists(folder + "/a"))
        self.in_child(rename)
        self.assertFalse(os.path.exists(folder + "/a"))
        self.assertTrue(os.path.exists(folder + "/b"))

    def test_a_list_of_3000_entries(self):
        folder = self.fresh_dir()
        names = {f"entry-{k:05d}" for k in range(3000)}
        for k, name in enumerate(sorted(names)):
            if k % 10:
                os.symlink("x", f"{folder}/{name}")
            else:
                os.mkdir(f"{folder}/{name}")
        listed = os.listdir(folder)
        self.assertEqual(len(listed), 3000)
        self.assertEqual(set(listed), names)
        with os.scandir(folder) as entries:
            kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        self.assertEqual(sum(kinds.values()), 300)
        self.assertTrue(kinds["entry-00010"])

    def test_a_list_while_it_is_emptied(self):
        folder = self.fresh_dir()
        for k in range(500):
            os.symlink("x", f"{folder}/{k}")
        seen = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                os.unlink(entry.path)
                seen += 1
        self.assertEqual(seen, 500)
        self.assertEqual(os.listdir(folder), [])

    def test_many_small_files(self):
        folder = self.fresh_dir()
        for k in range(2000):
            with open(f"{folder}/{k}", "wb") as f:
                f.write(b"%d" % k)
        self.assertEqual(len(os.listdir(folder)), 2000)
        for k in (0, 1, 999, 1999):
            self.assertEqual(read_file(f"{folder}/{k}"), b"%d" % k)
        self.assertEqual(sum(entry.stat().st_size for entry in os.scandir(folder)),
                         sum(len(str(k)) for k in range(2000)))
        for k in range(2000):
            os.unlink(f"{folder}/{k}")
        self.assertEqual(os.listdir(folder), [])
        os.rmdir(folder)

    def test_symbolic_links(self):
        folder = self.fresh_dir()
        write_file(folder + "/f", b"content")
        os.symlink("f", folder + "/relative")
        os.symlink("/no/such/place", folder + "/dangling")
        self.assertEqual(os.readlink(folder + "/relative"), "f")
        self.assertEqual(os.readlink(folder + "/dangling"), "/no/such/place")
        self.assertEqual(read_file(folder + "/relative"), b"content")
        self.assertTrue(stat.S_ISLNK(os.lstat(folder + "/relative").st_mode))
        self.assertEqual(os.lstat(folder + "/relative").st_size, 1)
        with self.fails(errno.ENOENT):
            os.stat(folder + "/dangling")
        with self.fails(errno.EINVAL):
            os.readlink(folder + "/f")
        with self.fails(errno.EEXIST):
            os.symlink("f", folder + "/relative")

    def test_names_of_255_and_256_bytes(self):
        folder = self.fresh_dir()
        longest = "n" * 255
        write_file(f"{folder}/{longest}", b"x")
        self.assertEqual(os.listdir(folder), [longest])
        for call in (os.mkdir, os.stat):
            with self.fails(errno.ENAMETOOLONG):
                call(f"{folder}/{longest}n")
        with self.fails(errno.ENAMETOOLONG):
            os.rename(f"{folder}/{longest}", f"{folder}/{longest}n")
        self.assertEqual(os.statvfs(folder).f_namemax, 255)

    def test_names_of_any_bytes(self):
        folder = self.fresh_dir().encode()
        for name in (b"sp ace", b"new\nline", b"\xff\xfe", "größe".encode(), b"-", b"~1"):
            os.mkdir(folder + b"/" + name)
            self.assertIn(name, os.listdir(folder))
            self.assertTrue(os.path.isdir(folder + b"/" + name))


if __name__ == "__main__":
    unittest.main(verbosity=2)
