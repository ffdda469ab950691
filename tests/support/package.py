"""Puts client/python and its tests' helpers in the path; what several tests of the package need."""
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
PACKAGE = os.path.join(ROOT, "client", "python")
sys.path.insert(0, PACKAGE)


def environment(**more):
    """The environment of a child that imports the package."""
    return dict(os.environ, PYTHONPATH=os.pathsep.join([PACKAGE, HERE]), OMP_NUM_THREADS="1", **more)


class Restarter:
    """Starts killed daemons again, 0.2 s later. A process of its own, made before anything on the mount is opened: a
    trainer that started the master would first wait for its child to close what it has inherited, and that close for
    the master."""

    def __init__(self, case):
        self.cluster = case.cluster
        orders, self.orders = os.pipe()
        self.reports, reports = os.pipe()
        case.addCleanup(os.close, self.orders)
        case.addCleanup(os.close, self.reports)
        case.fork(self._run, orders, reports)
        os.close(orders)
        os.close(reports)

    def _run(self, orders, reports):
        os.close(self.orders)
        while os.read(orders, 1):
            time.sleep(0.2)
            self.cluster.up()
            os.write(reports, b"u")

    def kill9(self, name):
        self.cluster.kill9(name)
        os.write(self.orders, b"u")

    def wait(self):
        """Until the last one killed runs again."""
        if os.read(self.reports, 1) != b"u":
            raise RuntimeError("the cluster was not started again")
