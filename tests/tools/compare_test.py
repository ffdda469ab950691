"""tools/compare with programs that only pretend: what is run and in which order, what is kept, what is told."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from comparison import aims, command, plan, plots, schedule, store, summary, tables, training
from comparison.estimate import Estimator, planned_s
from comparison.training import OutOfTime, RunFailed

FAKE = ROOT / "tests" / "support" / "comparison_fake.py"


class Comparison(unittest.TestCase):
    """A folder with the fakes, MNIST's name, and a place for the results."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="gradfs-compare-")
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        self.state, self.out, self.data = (self.top / name for name in ("state", "out", "data"))
        for made in (self.state, self.data, self.top / "bin"):
            made.mkdir()
        (self.data / "train-images-idx3-ubyte").touch()
        for name in ("fsctl", "gradfs-train"):
            (self.top / "bin" / name).write_text(FAKE.read_text())
            (self.top / "bin" / name).chmod(0o755)

    def start(self, *words, **environment):
        return subprocess.Popen([ROOT / "tools" / "compare", "--data", self.data, "--out", self.out, *words],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=dict(os.environ, GRADFS_BIN=str(self.top / "bin"), FAKE_STATE=str(self.state),
                                         **environment))

    def compare(self, *words, code=0, **environment):
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, code, out + err)
        return out, err

    def calls(self, program="gradfs-train"):
        """The command lines of a program since this was last asked."""
        path = self.state / "calls"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return [words[1:] for words in lines if words[0] == program]

    def results(self):
        return json.loads((self.out / "results.json").read_text())

    def no_cluster(self):
        self.assertFalse((self.state / "up").exists(), "a cluster still runs")


def option(words, name):
    return words[words.index(name) + 1]


class Whole(Comparison):
    def test_all_of_it(self):
        out, _ = self.compare("--smoke")
        expected = plan.runs(plan.smoke(1, 50.0))
        self.assertIn(f"{len(expected)} of {len(expected)} runs", out)
        self.assertEqual(len(self.calls()), len(expected))
        self.assertEqual(len(list((self.out / "runs").glob("*.json"))), len(expected))
        self.no_cluster()
        results = self.results()
        self.assertEqual(list(results["sections"]), list(plan.SECTIONS))
        self.assertEqual((results["failed"], results["missing"]), ([], []))
        self.assertTrue(results["machine"]["kernel"])
        speed = results["sections"]["speed"][0]["architectures"]
        self.assertEqual(set(speed), set(plan.ARCHITECTURES))
        self.assertAlmostEqual(speed["broadcast"]["exchange_to_coprocessor"], 10)
        self.assertAlmostEqual(speed["broadcast"]["bytes_per_update"], 8e6)
        table = (self.out / "table.txt").read_text()
        page = (self.out / "results.md").read_text()
        titles = ("Speed", "Learning rates", "A tiny model", "A straggler of 50 ms", "Partitions")
        for word in (*titles, *plan.ARCHITECTURES):
            self.assertIn(word, table)
            self.assertIn(word, page)
        svgs = sorted(path.stem for path in (self.out / "plots").iterdir())
        self.assertEqual(svgs, ["accuracy-by-epoch", "accuracy-by-time", "exchange", "loss-by-time", "partitions",
                                "straggler", "time-to-accuracy", "tune", "updates"])
        for name in svgs:
            image = xml.etree.ElementTree.parse(self.out / "plots" / f"{name}.svg").getroot()
            self.assertEqual(image.tag, "{http://www.w3.org/2000/svg}svg")
            self.assertIn("coprocessor", "".join(image.itertext()), name)
            self.assertIn(f"plots/{name}.svg", page)

    def test_rates_that_tuning_chose_are_used(self):
        out, _ = self.compare("--smoke", "--only", "tune,accuracy,partitions")
        rates = self.results()["learning_rates"]["tiny"]
        self.assertEqual(rates, {name: 2e-3 if name == "coprocessor" else 1e-3 for name in plan.ARCHITECTURES})
        self.assertIn("coprocessor 0.002", out)
        later = [words for words in self.calls() if "--evaluate-later" in words or "--partitions" in words]
        self.assertEqual(len(later), 8)
        self.assertEqual({option(words, "--lr") for words in later if "--lr" in words}, {"0.001"})
        for words in later:
            self.assertEqual("--lr" in words, option(words, "--architecture") != "coprocessor")
        found = {entry["model"]: entry for entry in self.results()["sections"]["accuracy"]}["tiny"]["architectures"]
        self.assertEqual(found["coprocessor"]["rate"], 2e-3)
        self.assertEqual(found["coprocessor"]["seconds_to_target"], 1.0)

    def test_architectures_take_turns(self):
        self.compare("--smoke", "--seeds", "2", "--only", "speed")
        calls = [(option(words, "--seed"), option(words, "--workers"), option(words, "--architecture"))
                 for words in self.calls()]
        first = list(plan.ARCHITECTURES)
        self.assertEqual([call[2] for call in calls[:6]], first)
        self.assertEqual([call[2] for call in calls[6:11]], first[:5])
        self.assertEqual([call[2] for call in calls[11:17]], first[1:] + first[:1])
        self.assertEqual([call[:2] for call in calls], [("1", "1")] * 6 + [("1", "2")] * 5 + [("2", "1")] * 6
                         + [("2", "2")] * 5)

    def test_a_fresh_model_for_every_run(self):
        self.compare("--smoke", "--only", "speed")
        calls = [words for words in self.calls("fsctl") if words[0] == "model"]
        created = [words for words in calls if words[1] == "create"]
        self.assertEqual(len({words[2] for words in created}), 11)
        self.assertEqual(sum("--plain" in words for words in created), 9)
        left = list((self.out / "mnt").glob("models/*"))
        self.assertEqual(left, [])


class GoingOn(Comparison):
    def test_what_is_there_is_not_run_again(self):
        self.compare("--smoke", "--only", "speed")
        self.assertEqual(len(self.calls()), 11)
        gone = [path for path in sorted((self.out / "runs").iterdir()) if "storage" in path.name]
        self.assertEqual(len(gone), 2)
        for path in gone:
            path.unlink()
        self.compare("--smoke", "--only", "speed")
        self.assertEqual([option(words, "--architecture") for words in self.calls()], ["storage"] * 2)
        out, _ = self.compare("--smoke", "--only", "speed")
        self.assertIn("all 11 runs are there", out)
        self.assertEqual(self.calls("fsctl"), [])

    def test_half_a_record_is_none(self):
        self.compare("--smoke", "--only", "tiny")
        self.calls()
        path = next((self.out / "runs").glob("*allreduce*"))
        path.write_text(path.read_text()[:100])
        self.compare("--smoke", "--only", "tiny")
        self.assertEqual([option(words, "--architecture") for words in self.calls()], ["allreduce"])

    def test_another_mode_is_refused(self):
        self.compare("--smoke", "--only", "tiny")
        self.calls()
        for words in (["--quick"], ["--smoke", "--seeds", "2"], ["--smoke", "--straggler-ms", "10"]):
            _, err = self.compare(*words, "--only", "tiny", code=1)
            self.assertRegex(err, r"^compare: .* holds a comparison with mode smoke.*--out\n$")
        self.assertEqual(self.calls(), [])

    def test_two_at_once_are_refused(self):
        kept = store.Store(self.out, {"mode": "smoke"})
        _, err = self.compare("--smoke", code=1)
        self.assertRegex(err, "^compare: .* is in use by another tools/compare.*\n$")
        kept.close()

    def test_interrupt(self):
        process = self.start("--smoke", "--only", "speed", FAKE_SLEEP_S="30", FAKE_SLOW="paramserver")
        deadline = time.monotonic() + 30
        while not list(self.out.glob("runs/*storage*.json")):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        time.sleep(0.3)
        self.assertTrue((self.state / "up").exists())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(err, "compare: stopped; the same command goes on where it was\n")
        self.no_cluster()
        with self.assertRaises(ProcessLookupError):
            os.kill(int((self.state / "trainer").read_text()), 0)
        self.assertEqual(len(self.calls()), 3)
        self.compare("--smoke", "--only", "speed")
        self.assertEqual(len(self.calls()), 9)
        self.assertEqual(self.results()["missing"], [])

    def test_leftovers_of_one_that_was_killed(self):
        process = self.start("--smoke", "--only", "tiny", FAKE_SLEEP_S="5")
        while not (self.state / "up").exists():
            time.sleep(0.02)
        process.kill()
        process.communicate()
        self.assertTrue((self.state / "up").exists())
        self.compare("--smoke", "--only", "tiny")
        self.no_cluster()


class Trouble(Comparison):
    def test_one_that_fails(self):
        out, err = self.compare("--smoke", "--only", "speed,tiny", code=1, FAKE_FAIL="storage")
        tried = [option(words, "--architecture") for words in self.calls()]
        self.assertEqual(tried.count("storage"), 2 * 3)  # twice each
        self.assertEqual(len(tried), 16 + 3)
        self.assertIn("once more: gradfs-train: the storage is on fire", out)
        self.assertRegex(err, "^compare: 3 runs failed, such as .*: gradfs-train: the storage is on fire\n$")
        self.assertEqual(len(self.results()["failed"]), 3)
        entry = self.results()["sections"]["tiny"][0]
        self.assertEqual(entry["absent"], {"storage": "gradfs-train: the storage is on fire"})
        self.assertEqual(len(entry["architectures"]), 4)
        self.assertIn("on fire", (self.out / "table.txt").read_text())
        self.no_cluster()
        self.compare("--smoke", "--only", "speed,tiny")  # it works now
        self.assertEqual([option(words, "--architecture") for words in self.calls()], ["storage"] * 3)
        self.assertEqual(self.results()["failed"], [])

    def test_no_programs(self):
        (self.top / "bin" / "fsctl").unlink()
        _, err = self.compare("--smoke", code=1)
        self.assertRegex(err, r"^compare: .*fsctl: No such file or directory: build first, or set GRADFS_BIN\n$")

    def test_no_matplotlib(self):
        """All but the plots is there, and a line says how to get them."""
        (self.top / "none").mkdir()
        (self.top / "none" / "matplotlib.py").write_text("raise ImportError\n")
        _, err = self.compare("--smoke", "--only", "tiny", code=1, PYTHONPATH=str(self.top / "none"))
        self.assertRegex(err, "^compare: no plots: apt-get install python3-matplotlib.*\n$")
        self.assertIn("A tiny model", (self.out / "results.md").read_text())

    def test_no_mnist(self):
        (self.data / "train-images-idx3-ubyte").unlink()
        _, err = self.compare("--smoke", code=1)
        self.assertRegex(err, r"^compare: there is no MNIST in .*tools/get-mnist.*\n$")

    def test_time_is_up(self):
        """12 s less the reserve are 7 s, and a run takes a second."""
        out, _ = self.compare("--smoke", "--budget", str(12 / 3600), FAKE_SLEEP_S="1")
        done = len(self.calls())
        self.assertIn(done, range(2, 8))
        self.assertEqual(len(self.results()["missing"]), 46 - done)
        self.assertIn(f"the time is up: {46 - done} runs were left out", out)
        self.assertIn("left out", (self.out / "table.txt").read_text())
        self.no_cluster()

    def test_a_run_is_stopped_when_the_time_is_up(self):
        began = time.monotonic()
        self.compare("--smoke", "--budget", str(9 / 3600), FAKE_SLEEP_S="60")
        self.assertLess(time.monotonic() - began, 12)
        self.assertEqual(len(self.calls()), 1)
        self.assertEqual(self.results()["failed"], [])
        self.no_cluster()


class Usage(Comparison):
    def test_help(self):
        out, _ = self.compare("--help")
        for word in ("--quick", "--full", "--smoke", "--budget", "--seeds", "--only", "--out", *plan.SECTIONS):
            self.assertIn(word, out)

    def test_wrong(self):
        for words in (["--sideways"], ["--quick", "--full"], ["--seeds", "0"], ["--seeds", "many"], ["--budget", "-1"],
                      ["--quick", "--budget", "1"], ["--only", "speed,fun"], ["--straggler-ms", "x"], ["more"]):
            _, err = self.compare(*words, code=2)
            self.assertRegex(err, r"^compare: .*\n$", words)
        self.assertEqual(self.calls("fsctl"), [])

    def test_out_is_needed(self):
        done = subprocess.run([ROOT / "tools" / "compare"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--out", done.stderr)


class Plans(unittest.TestCase):
    def test_keys_are_names(self):
        for mode in (plan.quick(2, 50.0), plan.full(3, 50.0, 3600), plan.smoke(1, 50.0)):
            keys = [plan.with_rate(run, {}).key for run in plan.runs(mode)]
            self.assertEqual(len(set(keys)), len(keys), mode.name)
            self.assertFalse([key for key in keys if "/" in key])

    def test_quick_fits(self):
        runs = [plan.with_rate(run, {}) for run in plan.runs(plan.quick(1, 50.0))]
        self.assertLess(planned_s(runs), 14 * 60)  # the limit, less the reserve
        stages = list(dict.fromkeys((run.section, run.model in plan.SIZES[1:] and run.section != "speed")
                                    for run in runs))
        self.assertEqual([section for section, _ in stages],
                         ["speed", "tune", "accuracy", "tiny", "straggler", "partitions", "accuracy"])

    def test_epochs_to_the_target_are_a_median(self):
        for mode in (plan.quick(1, 50.0), plan.full(1, 50.0, 3600), plan.full(5, 50.0, 3600)):
            seeds = {}
            for run in plan.accuracy(mode, ["mnist"]):
                seeds.setdefault(run.architecture, []).append(run.seed)
            for architecture, its_seeds in seeds.items():
                least = 3 if architecture in ("coprocessor", "local") else 1
                self.assertEqual(its_seeds, list(range(1, max(mode.seeds, least) + 1)), architecture)

    def test_short_runs_are_repeated(self):
        runs = list(plan.speed(plan.quick(1, 50.0)))
        times = {model: sum(run.model == model for run in runs) for model in plan.SIZES}
        self.assertEqual(times, {"mnist": 66, "higgs": 22, "molecular": 22})

    def test_full_is_as_long_as_its_budget(self):
        for hours, seeds in ((6, 3), (3, 3), (1, 1)):
            mode = command.mode_of(command.parse(["--full", "--budget", str(hours), "--out", "x"]))
            planned = planned_s(plan.with_rate(run, {}) for run in plan.runs(mode))
            self.assertEqual(mode.seeds, seeds)
            self.assertLess(planned, hours * 3600)
            self.assertGreater(planned, 0.8 * hours * 3600)

    def test_all_have_equal_budgets_in_tuning(self):
        for mode in (plan.quick(1, 50.0), plan.full(3, 50.0, 3600)):
            by_architecture = {}
            for run in plan.tune(mode):
                by_architecture.setdefault(run.architecture, set()).add((run.model, run.rate, run.seconds, run.epochs))
            self.assertEqual(len(set(map(frozenset, by_architecture.values()))), 1)
            self.assertEqual(set(by_architecture), set(plan.ARCHITECTURES))


class Words(unittest.TestCase):
    """Command lines of gradfs-train."""

    @staticmethod
    def of(section, **wanted):
        run = next(run for run in plan.runs(plan.quick(1, 50.0), [section])
                   if all(getattr(run, name) == value for name, value in wanted.items()))
        words = training.command(plan.with_rate(run, {}), "gradfs-train", "/mnt/m", "/data", "report.json")
        return " ".join(words[1:])

    def test_mnist(self):
        self.assertEqual(self.of("speed", model="mnist", architecture="storage", workers=2, batch=32),
                         "--model /mnt/m --dataset mnist --architecture storage --workers 2 --batch-size 32 --seed 1 "
                         "--evaluate-every 1000 --report report.json --data /data --max-seconds 1.2 --optimizer adam "
                         "--lr 0.001")

    def test_made_data(self):
        self.assertEqual(self.of("accuracy", model="molecular", architecture="coprocessor"),
                         "--model /mnt/m --dataset molecular --architecture coprocessor --workers 2 --batch-size 64 "
                         "--seed 1 --evaluate-every 0.05 --report report.json --rows 20000 --test-rows 2000 "
                         "--max-seconds 4 --evaluate-later")

    def test_straggler(self):
        self.assertRegex(self.of("straggler", straggler_ms=50.0, architecture="coprocessor"), " --straggler-ms 50$")
        self.assertNotIn("--straggler-ms", self.of("straggler", straggler_ms=0.0))

    def test_partitions(self):
        self.assertTrue(self.of("partitions", partitions=32).endswith("--epochs 1 --partitions 32"))


class Kept:
    """A store in memory. reports: {run: report}"""

    def __init__(self, reports):
        self.reports, self.errors = dict(reports), {}

    def report(self, run):
        return self.reports.get(run)

    def find(self, run):
        return {"report": self.reports[run]} if run in self.reports else None

    def error(self, run):
        return self.errors.get(run)

    def save(self, run, wall_s, report):
        self.reports[run] = report

    def save_error(self, run, error):
        self.errors[run] = error


class Scheduling(unittest.TestCase):
    """Time is a number here: each training takes as long as it says."""

    def setUp(self):
        self.time, self.trained, self.store = 0.0, [], Kept({})
        self.runs = list(plan.speed(plan.smoke(1, 50.0)))  # 11, each planned with 1.8 s

    def schedule(self, train, deadline):
        def timed(run, limit_s):
            self.trained.append(run.architecture)
            took, what = train(run)
            self.time += min(took, limit_s)
            if took > limit_s:
                raise OutOfTime
            if isinstance(what, Exception):
                raise what
            return took, what
        return schedule.Schedule(self.runs, self.store, Estimator(), timed, deadline, say=lambda line: None,
                                 now=lambda: self.time)()

    def test_all_of_them(self):
        self.assertEqual(self.schedule(lambda run: (1.8, {}), 100), 0)
        self.assertEqual(len(self.store.reports), 11)

    def test_what_does_not_fit_is_not_begun(self):
        self.assertEqual(self.schedule(lambda run: (1.8, {}), 10), 6)
        self.assertEqual(len(self.trained), 5)
        self.assertLessEqual(self.time, 10)

    def test_it_learns_how_long_they_take(self):
        self.schedule(lambda run: (5.0, {"train_seconds": 1.0}), 13)
        self.assertEqual(len(self.trained), 2)
        self.assertEqual(len(self.store.reports), 2)

    def test_once_more(self):
        errors = [RunFailed("not yet")]
        self.schedule(lambda run: (1, errors.pop() if errors else {}), 100)
        self.assertEqual(len(self.trained), 12)
        self.assertEqual(self.store.errors, {})
        self.assertEqual(len(self.store.reports), 11)

    def test_one_that_hangs(self):
        self.schedule(lambda run: (1e6 if run.architecture == "storage" else 1, {}), 1e5)
        self.assertEqual(self.trained.count("storage"), 4)
        self.assertEqual(len(self.store.reports), 9)
        self.assertRegex(next(iter(self.store.errors.values())), "no end after 60 s")


def report(**more):
    return {"updates_per_second": 100.0, "train_seconds": 2.0, "samples_per_second": 800.0, "bytes_moved": 4000,
            "exchange_ms": {"median": 2.0, "p99": 9.0}, "cpu_seconds": 3.0, "epochs_completed": 0.5, **more}


class Figures(unittest.TestCase):
    def test_measures(self):
        found = summary.measures(report())
        self.assertEqual(found["bytes_per_update"], 20)
        self.assertEqual(found["cpu_seconds_per_update"], 0.015)
        self.assertEqual(found["seconds_per_epoch"], 4)
        self.assertEqual(found["exchange_p99_ms"], 9.0)
        self.assertIsNone(found["compute_ms"])
        nulls = {name: None for name in report()}
        self.assertEqual(set(summary.measures(nulls).values()), {None})

    def test_medians(self):
        self.assertEqual(summary.median([3, None, 1, 2]), 2)
        self.assertIsNone(summary.median([None]))
        self.assertEqual(summary.median([1, None, 2], float("inf")), 2)
        self.assertIsNone(summary.median([1, None, None], float("inf")))
        found = summary.combined([report(updates_per_second=value) for value in (10.0, 90.0, 20.0)])
        self.assertEqual((found["runs"], found["updates_per_second"]), (3, 20.0))

    def test_first_at_or_above(self):
        history = [{"seconds": n, "epoch": n / 10, "test_accuracy": accuracy}
                   for n, accuracy in enumerate((0.97, 0.975, 0.96, 0.98), 1)]
        self.assertEqual(summary.first_at(history, 0.975, "seconds"), 2)
        self.assertEqual(summary.first_at(history, 0.976, "epoch"), 0.4)
        self.assertIsNone(summary.first_at(history, 0.99, "seconds"))
        self.assertIsNone(summary.first_at(None, 0.9, "seconds"))

    def test_rates(self):
        runs = [run for run in plan.tune(plan.quick(1, 50.0)) if run.architecture in ("storage", "local")]
        of = {(run.architecture, run.rate): run for run in runs}
        low, middle, high = plan.quick(1, 50.0).rates
        kept = Kept({of["storage", low]: report(test_accuracy=0.99, train_loss=0.3),
                     of["storage", middle]: report(test_accuracy=0.97, train_loss=0.2),
                     of["storage", high]: report(test_accuracy=0.98, train_loss=0.2),
                     of["local", low]: report(test_accuracy=0.9, train_loss=None),
                     of["local", middle]: report(test_accuracy=None, train_loss=0.5)})
        self.assertEqual(summary.chosen_rates(runs, kept), {"mnist": {"storage": high, "local": middle}})

    def test_rates_of_a_model_that_was_not_tuned(self):
        run = next(plan.tiny(plan.quick(1, 50.0)))
        self.assertEqual(plan.with_rate(run, {}).rate, plan.DEFAULT_RATE)
        rates = {"mnist": {run.architecture: 5e-4}}
        self.assertEqual(plan.with_rate(run, rates).rate, 5e-4)
        self.assertEqual(plan.with_rate(run, {**rates, "tiny": {run.architecture: 4e-3}}).rate, 4e-3)

    def test_numbers(self):
        for value, text in ((None, "-"), (0, "0"), (1234567.0, "1,234,567"), (123.4, "123"), (12.34, "12.3"),
                            (1.234, "1.23"), (0.1234, "0.123"), (0.001234, "0.00123")):
            self.assertEqual(tables.figure(value), text)


class Aims(unittest.TestCase):
    @staticmethod
    def sections(**figures):
        """Speed of one setting, and MNIST. figures: exchange ms, updates/s, seconds and epochs to the target"""
        speed, accuracy = {}, {}
        for name, (exchange, updates, seconds, epochs) in figures.items():
            speed[name] = {"exchange_ms": exchange, "updates_per_second": updates}
            accuracy[name] = {"seconds_to_target": seconds, "epochs_to_target": epochs}
        setting = {"model": "mnist", "label": "1.86M", "batch": 8, "workers": 2, "architectures": speed}
        return {"speed": [setting], "accuracy": [{"model": "mnist", "architectures": accuracy}]}

    GOOD = {"coprocessor": (1.0, 100, 10.0, 1.1), "storage": (2.0, 90, 20.0, 1.0), "paramserver": (4.0, 80, 11.0, 1.0),
            "broadcast": (9.0, 20, None, None), "local": (0.0, 60, 30.0, 1.0)}

    def passed(self, **figures):
        return {aim["name"]: aim["passed"] for aim in aims.judge(self.sections(**{**self.GOOD, **figures}))}

    def test_met(self):
        self.assertEqual(self.passed(), {"exchange": True, "updates": True, "first": True, "epochs": True})

    def test_missed(self):
        self.assertFalse(self.passed(storage=(1.9, 90, 20.0, 1.0))["exchange"])
        self.assertFalse(self.passed(storage=(2.0, 100, 20.0, 1.0))["updates"])
        self.assertFalse(self.passed(paramserver=(4.0, 80, 10.0, 1.0))["first"])
        self.assertFalse(self.passed(coprocessor=(1.0, 100, 10.0, 1.2))["epochs"])
        never = self.passed(coprocessor=(1.0, 100, None, None))
        self.assertFalse(never["first"])
        self.assertIs(never["epochs"], False)

    def test_the_worst_is_told(self):
        measured = aims.judge(self.sections(**self.GOOD))[0]["measured"]
        self.assertEqual(measured, "worst 0.50 (storage, 1.86M, batch 8, workers 2); 3 of 3 hold")

    def test_unknown(self):
        self.assertEqual({aim["passed"] for aim in aims.judge({})}, {None})
        sections = self.sections(**{name: self.GOOD[name] for name in ("coprocessor", "storage")})
        self.assertEqual([aim["passed"] for aim in aims.judge(sections)], [None] * 4)


if __name__ == "__main__":
    unittest.main()
