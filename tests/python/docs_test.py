"""The programs in docs/python.md, run as they stand there."""
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import package
from case import ClusterCase

PUSHES = [1, 10, 5, 3, 1, 20]  # of each program, in their order


class Docs(ClusterCase):
    def test_programs(self):
        with open(os.path.join(package.ROOT, "docs", "python.md"), encoding="utf-8") as file:
            text = file.read()
        (shell,) = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
        for line in shell.splitlines():
            program, *arguments = line.split()
            self.assertEqual(program, "fsctl")
            self.cluster.fsctl(*arguments)
        programs = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
        self.assertEqual(len(programs), len(PUSHES))
        model = self.mnt("models/toy")
        pushes = 0
        for program, more in zip(programs, PUSHES):
            program = program.replace("/mnt/gradfs", self.cluster.mnt)
            done = subprocess.run([sys.executable, "-B", "-W", "error", "-c", program],
                                  env=package.environment(), capture_output=True, text=True, timeout=50)
            self.assertEqual((done.returncode, done.stderr), (0, ""), program)
            pushes += more
            version = os.getxattr(f"{model}/model.safetensors", "user.gradfs.version")
            self.assertEqual(int(version), pushes, program)
        self.assertEqual(os.listdir(f"{model}/rejected"), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
