"""Every rule of tools/tidy fires on a bad sample and is silent on a good one."""
import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
TIDY = pathlib.Path(__file__).resolve().parents[2] / "tools" / "tidy"
loader = importlib.machinery.SourceFileLoader("tidy", str(TIDY))
tidy = importlib.util.module_from_spec(importlib.util.spec_from_loader("tidy", loader))
loader.exec_module(tidy)

GOOD = {
    "CMakeLists.txt": "add_subdirectory(fs)\n",
    "fs/base/CMakeLists.txt": "gradfs_library(gradfs_base SOURCES clock.cc)\n",
    "fs/base/clock.h": "#pragma once\nint now();\n",
    "fs/base/clock.cc": '#include "fs/base/clock.h"\n\nint now() { return 1; }\n',
    "fs/wire/CMakeLists.txt": "gradfs_library(gradfs_wire SOURCES frame.cc)\n",
    "fs/wire/frame.cc": '#include <boost/asio/awaitable.hpp>\n\n#include "fs/base/clock.h"\n\n'
                        'int frame() { return now(); }\n',
    "tests/CMakeLists.txt": "gradfs_test(base DEPENDS gradfs_base)\ninclude(blackbox.cmake)\n",
    "tests/blackbox.cmake": "set(mount_tests posix)\n",
    "tests/base/clock_test.cc": '#include "fs/base/clock.h"\nint main() { return now(); }\n',
    "tests/mount/posix_test.py": "print('ok')\n",
}


def function(lines):
    return "int f(int x) {\n" + "  ++x;\n" * (lines - 2) + "}\n"


class RulesTest(unittest.TestCase):
    def findings(self, extra):
        with tempfile.TemporaryDirectory(prefix="gradfs-tidy-") as folder:
            for path, text in {**GOOD, **extra}.items():
                file = pathlib.Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            return [(path, line, rule) for path, line, rule, _ in tidy.rules(folder)]

    def fires(self, rule, path, text, line):
        self.assertIn((path, line, rule), self.findings({path: text}))

    def silent(self, path, text):
        self.assertEqual(self.findings({path: text}), [])

    def in_clock(self, code):
        return GOOD["fs/base/clock.cc"] + code

    def test_good_tree(self):
        self.assertEqual(self.findings({}), [])

    def test_line_length(self):
        long = "x" * (tidy.LINE_MAX_COLUMNS - 2)
        for path, comment in [("fs/base/clock.cc", "//"), ("tests/mount/posix_test.py", "# "),
                              ("tests/blackbox.cmake", "# ")]:
            self.fires("line-length", path, GOOD[path] + comment + long + "x\n", GOOD[path].count("\n") + 1)
            self.silent(path, GOOD[path] + comment + long + "\n")
        self.fires("line-length", "tools/run", "#!/bin/bash\n# " + long + "x\n", 2)

    def test_file_length(self):
        self.fires("file-length", "fs/base/clock.cc", "\n" * (tidy.FILE_MAX_LINES + 1), tidy.FILE_MAX_LINES + 1)
        self.silent("fs/base/clock.cc", GOOD["fs/base/clock.cc"] + "\n" * (tidy.FILE_MAX_LINES - 3))

    def test_function_length(self):
        most = tidy.FUNCTION_MAX_LINES
        self.fires("function-length", "fs/base/clock.cc", self.in_clock(function(most + 1)), 4)
        self.silent("fs/base/clock.cc", self.in_clock(function(most)))
        self.silent("fs/base/clock.cc", self.in_clock(function(most) + function(most)))

    def test_function_length_inside_scopes(self):
        within = "namespace a {\nclass B : public C<int> {\n public:\n"
        within += function(tidy.FUNCTION_MAX_LINES + 1) + "};\n}\n"
        self.fires("function-length", "fs/base/clock.cc", self.in_clock(within), 7)
        many = "namespace a {\nclass B {\n public:\n" + "  int f() { return 1; }\n" * 100 + "};\n}\n"
        self.silent("fs/base/clock.cc", self.in_clock(many))
        constructor = "A::A(int x) : b_{x}, c_(x), d_{1} {\n" + "  ++x;\n" * tidy.FUNCTION_MAX_LINES + "}\n"
        self.fires("function-length", "fs/base/clock.cc", self.in_clock(constructor), 4)
        table = "constexpr int kTable[] = {\n" + "    1,\n" * 100 + "};\n"
        self.silent("fs/base/clock.cc", self.in_clock(table))

    def test_banned(self):
        for code in ["sprintf(a, b);", "strcpy(a, b);", "rand();", "system(a);", "::system (a);", "atoi(a);",
                     "thread_.detach();", "worker_thread->detach();", "co_spawn(e, t(), asio::detached);",
                     "co_spawn(e, t(), detached);", "using namespace std;", "std::regex r;", "std::async(f);",
                     "popen(a, b);", "mktemp(a);"]:
            with self.subTest(code):
                self.fires("banned", "fs/base/clock.cc", self.in_clock(f"void g() {{\n  {code}\n}}\n"), 5)
        for code in ["snprintf(a, n, b);", "my_system(a);", "operand(a);", "f(\"rand()\");", "// system(a)",
                     "/* strcpy(a,\n b) */", "mount_->detach();", "using namespace std_like;", "f(R\"(rand())\");",
                     "x = 1'000; // rand()\n y = '\\'';"]:
            with self.subTest(code):
                self.silent("fs/base/clock.cc", self.in_clock(f"void g() {{\n  {code}\n}}\n"))

    def test_unfinished(self):
        for word in ["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]:
            self.fires("unfinished", "fs/base/clock.cc", self.in_clock(f"// {word}: more\n"), 4)
            self.fires("unfinished", "tests/mount/posix_test.py", f"# {word}\n", 1)
        self.silent("fs/base/clock.cc", self.in_clock("// mkdtemp(\"/tmp/XXXXXX\"), mktodo\n"))

    def test_include_direction(self):
        upward = '#include "fs/wire/frame.h"\n'
        found = self.findings({"fs/wire/frame.h": "#pragma once\n", "fs/base/clock.cc": upward})
        self.assertIn(("fs/base/clock.cc", 1, "include-direction"), found)
        trainer = {"trainer/CMakeLists.txt": "main.cc\n", "fs/wire/frame.h": "#pragma once\n"}
        found = self.findings({**trainer, "trainer/main.cc": upward})
        self.assertIn(("trainer/main.cc", 1, "include-direction"), found)
        downward = '#include "fs/base/clock.h"\n'
        self.assertEqual(
            self.findings({**trainer, "trainer/main.cc": downward, "tests/base/clock_test.cc": upward}), [])

    def test_include_path(self):
        self.fires("include-path", "fs/base/clock.cc", '#include "clock.h"\n', 1)

    def test_wrapped_libraries(self):
        headers = ["rocksdb/db.h", "liburing.h", "fuse3/fuse_lowlevel.h", "linux/fuse.h", "Eigen/Dense",
                   "boost/asio/post.hpp", "boost/asio.hpp"]
        for header in headers:
            with self.subTest(header):
                text = f"#include <{header}>\n" + GOOD["fs/wire/frame.cc"]
                self.fires("wrapped-library", "fs/wire/frame.cc", text, 1)
        self.assertEqual(self.findings({"fs/net/CMakeLists.txt": "executor.cc\n",
                                        "fs/net/executor.cc": "#include <boost/asio/post.hpp>\n"}), [])

    def test_headers(self):
        self.fires("pragma-once", "fs/base/clock.h", "int now();\n", 1)
        self.fires("unused-header", "fs/base/spare.h", "#pragma once\n", 1)
        own = {"fs/wire/frame.h": "#pragma once\n", "fs/wire/frame.cc": '#include "fs/wire/frame.h"\n'}
        self.assertIn(("fs/wire/frame.h", 1, "unused-header"), self.findings(own))
        self.silent("coproc/gradfs_coproc.h", "#ifndef GRADFS_COPROC_H\n#define GRADFS_COPROC_H\n#endif\n")

    def test_not_built(self):
        self.fires("not-built", "fs/base/spare.cc", "int spare();\n", 1)
        commented = {"fs/base/spare.cc": "int spare();\n", "fs/base/CMakeLists.txt": "clock.cc # spare.cc\n"}
        self.assertEqual(self.findings(commented), [("fs/base/spare.cc", 1, "not-built")])
        longer = {"fs/base/ock.cc": "int spare();\n"}
        self.assertEqual(self.findings(longer), [("fs/base/ock.cc", 1, "not-built")])

    def test_not_registered(self):
        self.fires("not-registered", "tests/wire/frame_test.cc", "int main() {}\n", 1)
        self.fires("not-registered", "tests/mount/spare_test.py", "print()\n", 1)
        self.silent("tests/base/more_test.cc", "int more() { return 1; }\n")

    def test_places(self):
        self.assertIn(("notes.txt", 1, "top-level"), self.findings({"notes.txt": "x\n"}))
        self.assertIn(("fs/other/a.cc", 1, "layout"), self.findings({"fs/other/a.cc": "int a();\n"}))


COROUTINE = """#include <coroutine>
#include <utility>
struct Task {
  struct promise_type {
    Task get_return_object() { return {}; }
    std::suspend_never initial_suspend() { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() {}
  };
  bool await_ready() { return true; }
  void await_suspend(std::coroutine_handle<>) {}
  void await_resume() {}
};
struct Name { Name(const char*); ~Name(); Name(const Name&); };
struct Options { Name name; };
Task use(Options options);
Options made();
"""


class CoAwaitTest(unittest.TestCase):
    def check(self, body):
        with tempfile.TemporaryDirectory(prefix="gradfs-tidy-") as folder:
            file = pathlib.Path(folder, "fs/base/await.cc")
            file.parent.mkdir(parents=True)
            file.write_text(COROUTINE + "Task run(Name name) {\n" + body + "}\n")
            entry = {"directory": folder, "file": str(file), "command": f"clang++-19 -std=c++20 -c {file}"}
            pathlib.Path(folder, "compile_commands.json").write_text(json.dumps([entry]))
            findings, unchecked, count = tidy.co_await(folder, folder)
            self.assertEqual(count, 1)
            return [line for _, line, _, _ in findings], unchecked

    def test_bad(self):
        first = COROUTINE.count("\n") + 2
        self.assertEqual(self.check("  co_await use(Options{name});\n"), ([first], []))
        self.assertEqual(self.check("  co_await use({.name = name});\n"), ([first], []))
        self.assertEqual(self.check("  co_await use(&name != nullptr ? made() : made());\n"), ([first], []))
        self.assertEqual(self.check("\n  co_await [name]() -> Task { co_return; }();\n"), ([first + 1], []))

    def test_good(self):
        self.assertEqual(self.check("  Options options{name};\n  co_await use(std::move(options));\n"), ([], []))
        self.assertEqual(self.check("  co_await [&name]() -> Task { co_return; }();\n"), ([], []))

    def test_a_file_that_does_not_compile_is_not_clean(self):
        findings, unchecked = self.check("  co_await nothing_like_it();\n")
        self.assertEqual(findings, [])
        self.assertEqual(len(unchecked), 1)


if __name__ == "__main__":
    unittest.main(verbosity=1)
