"""When a gradient lands: once and whole, or refused; never half, never twice, whatever program writes it."""
import array
import os
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from case import write_all, write_file
from landing import SETTLE_S, LandingCase


class Programs(LandingCase):
    def test_cat(self):
        self.shell('cat "$0" > "$1"')
        self.landed()

    def test_cat_in_parts(self):
        self.shell('(head -c 1000 "$0"; sleep 0.3; tail -c +1001 "$0") > "$1"')
        self.landed()

    def test_exec_redirection(self):
        self.shell('exec 5> "$1"; head -c 1000 "$0" >&5; /bin/true; tail -c +1001 "$0" >&5; exec 5>&-')
        self.landed()

    def test_append_redirections(self):
        """The first >> closes a file that is not whole: it is refused; what is appended later is another file."""
        subprocess.run(["bash", "-c", 'head -c 1000 "$0" >> "$1"; tail -c +1001 "$0" >> "$1"', self.local, self.target],
                       capture_output=True, timeout=30)
        time.sleep(SETTLE_S)
        self.assertEqual(self.model.bits(), self.before)
        self.assertIn("x", self.model.rejected())

    def test_dd(self):
        self.shell('dd if="$0" of="$1" bs=64k status=none')
        self.landed()

    def test_dd_with_fsync(self):
        self.shell('dd if="$0" of="$1" bs=4k conv=fsync status=none')
        self.landed()

    def test_cp(self):
        self.shell('cp "$0" "$1"')
        self.landed()

    def test_cp_within_the_mount(self):
        write_file(self.mnt("inside"), self.content)
        self.shell(f'cp "{self.mnt("inside")}" "$1"')
        self.landed()

    def test_mv_from_another_filesystem(self):
        self.shell('cp "$0" "$0.moving"; mv "$0.moving" "$1"')
        self.landed()

    def test_tee(self):
        self.shell('tee "$1" < "$0" > /dev/null')
        self.landed()

    def test_a_pipeline(self):
        self.shell('cat "$0" | cat | cat > "$1"')
        self.landed()


class Descriptors(LandingCase):
    """Each writer is a process of its own, so that no descriptor of the test plays a part."""

    def run_writer(self, writer, may_fail=False):
        code = self.fork(writer).wait(20)
        self.assertIn(code, (0, 1) if may_fail else (0,))

    def test_tofile_three_times(self):
        def writer():
            parts = array.array("B", self.content)
            with open(self.target, "wb") as f:
                parts[:self.header].tofile(f)
                f.flush()
                parts[self.header:self.half].tofile(f)
                f.flush()
                parts[self.half:].tofile(f)

        self.run_writer(writer)
        self.landed()

    def test_tofile_as_numpy_does_it(self):
        """NumPy dups the descriptor, writes through a stream on it, and closes that, for each array."""
        def writer():
            with open(self.target, "wb") as f:
                for begin, end in ((0, self.header), (self.header, self.half), (self.half, len(self.content))):
                    with os.fdopen(os.dup(f.fileno()), "wb") as stream:
                        stream.write(self.content[begin:end])

        self.run_writer(writer)
        self.landed()

    def test_full_size_first_then_dup_and_close(self):
        def writer():
            fd = self.create()
            os.ftruncate(fd, len(self.content))
            os.pwrite(fd, self.content[:self.half], 0)
            os.close(os.dup(fd))
            time.sleep(0.3)
            os.pwrite(fd, self.content[self.half:], self.half)
            os.close(fd)

        self.run_writer(writer)
        self.landed()

    def test_dup_in_the_other_order(self):
        def writer():
            fd = self.create()
            other = os.dup(fd)
            write_all(fd, self.content[:self.half])
            os.close(fd)
            time.sleep(0.3)
            write_all(other, self.content[self.half:])
            os.close(other)

        self.run_writer(writer)
        self.landed()

    def test_a_second_open_of_the_same_name(self):
        def writer():
            first = self.create()
            second = os.open(self.target, os.O_WRONLY)
            os.pwrite(first, self.content[:self.half], 0)
            os.close(first)
            os.pwrite(second, self.content[self.half:], self.half)
            os.close(second)

        self.run_writer(writer, may_fail=True)
        self.landed_or_refused()

    def test_a_child_that_exits_early(self):
        def writer():
            fd = self.create()
            os.ftruncate(fd, len(self.content))
            os.pwrite(fd, self.content[:self.half], 0)
            if os.fork() == 0:
                os._exit(0)
            os.wait()
            time.sleep(0.3)
            os.pwrite(fd, self.content[self.half:], self.half)
            os.close(fd)

        self.run_writer(writer)
        self.landed()

    def test_a_child_that_closes_early(self):
        def writer():
            fd = self.create()
            os.ftruncate(fd, len(self.content))
            os.pwrite(fd, self.content[:self.half], 0)
            child = os.fork()
            if child == 0:
                os.close(fd)
                time.sleep(0.5)
                os._exit(0)
            time.sleep(0.3)
            os.pwrite(fd, self.content[self.half:], self.half)
            os.close(fd)
            os.waitpid(child, 0)

        self.run_writer(writer)
        self.landed()

    def test_children_write_and_the_parent_closes(self):
        def writer():
            fd = self.create()
            for part in (self.content[:self.half], self.content[self.half:]):
                if os.fork() == 0:
                    write_all(fd, part)
                    os._exit(0)
                os.wait()
            os.close(fd)

        self.run_writer(writer)
        self.landed()

    def test_the_parent_closes_before_the_child_has_written(self):
        def writer():
            fd = self.create()
            write_all(fd, self.content[:self.half])
            child = os.fork()
            if child == 0:
                time.sleep(0.3)
                write_all(fd, self.content[self.half:])
                os.close(fd)
                os._exit(0)
            try:
                os.close(fd)
            finally:
                os.waitpid(child, 0)

        self.run_writer(writer, may_fail=True)
        self.landed_or_refused()

    def test_subprocesses_that_inherit_stdout(self):
        def writer():
            with open(self.target, "wb") as f:
                for part in ("head -c 1000", "tail -c +1001"):
                    subprocess.run(f'{part} "{self.local}"', shell=True, stdout=f, check=True)

        self.run_writer(writer)
        self.landed()

    def test_a_subprocess_that_does_not_inherit(self):
        def writer():
            fd = self.create()
            os.ftruncate(fd, len(self.content))
            os.pwrite(fd, self.content[:self.half], 0)
            subprocess.run(["/bin/true"], check=True)
            time.sleep(0.2)
            os.pwrite(fd, self.content[self.half:], self.half)
            os.close(fd)

        self.run_writer(writer)
        self.landed()

    def test_exec_closes_it(self):
        def writer():
            fd = self.create()
            write_all(fd, self.content)
            os.execv("/bin/true", ["true"])

        self.run_writer(writer)
        self.landed()

    def test_exit_closes_it(self):
        def writer():
            write_all(self.create(), self.content)

        self.run_writer(writer)
        self.landed()

    def test_reading_and_writing_without_a_map(self):
        def writer():
            fd = self.create(os.O_RDWR)
            write_all(fd, self.content)
            assert os.pread(fd, 100, 0) == self.content[:100]
            os.close(fd)

        self.run_writer(writer)
        self.landed()

    def test_backwards_in_small_parts(self):
        def writer():
            fd = self.create()
            for at in reversed(range(0, len(self.content), 3000)):
                os.pwrite(fd, self.content[at:at + 3000], at)
            os.close(fd)

        self.run_writer(writer)
        self.landed()

    def test_a_reader_beside_the_writer(self):
        def writer():
            fd = self.create()
            os.pwrite(fd, self.content[:self.half], 0)
            reader = os.open(self.target, os.O_RDONLY)
            assert os.pread(reader, 10, 0) == self.content[:10]
            os.close(reader)
            os.pwrite(fd, self.content[self.half:], self.half)
            os.close(fd)

        self.run_writer(writer)
        self.landed()

    def test_a_thread_closes_it(self):
        def writer():
            fd = self.create()
            write_all(fd, self.content)
            thread = threading.Thread(target=os.close, args=(fd,))
            thread.start()
            thread.join()

        self.run_writer(writer)
        self.landed()


if __name__ == "__main__":
    unittest.main(verbosity=2)
