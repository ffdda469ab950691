"""tools/compare: the command line, and what it does from the first run to the last plot."""
import argparse
import os
import pathlib
import sys
import time

from comparison import aims, interrupts, machine, plan, plots, summary, tables
from comparison.cluster import Cluster, ClusterError
from comparison.estimate import Estimator, planned_s
from comparison.schedule import Schedule
from comparison.store import Refused, Store, write_json, write_text
from comparison.training import Trainer

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICK_MAX_H = 0.25
FULL_H = 6.0
PLANNED_SHARE = 0.92  # of a full comparison's time; the rest is for what cannot be foreseen
SCALE_MIN, SCALE_MAX = 0.25, 8.0
HOUR_S = 3600

DESCRIPTION = """Trains the same models with the same data through each architecture of gradfs-train (broadcast,
storage, paramserver, coprocessor, allreduce; local for reference), in turn, and compares speed, exchange and accuracy.

It starts a cluster of its own in DIR and takes it down at the end. Each run that has ended is kept in DIR/runs: after
Ctrl-C, the same command goes on where it was. Results: DIR/results.md, table.txt, results.json, plots/*.svg."""
EPILOG = """sections: %s
exit status: 0 all runs that there was time for went well; 1 some failed, or it could not work; 2 wrong usage;
130 interrupted. A missed aim is no error. Runs as root, on a machine that has nothing else to do.
Environment: GRADFS_BIN, the folder of the programs (build/release/bin).""" % ", ".join(plan.SECTIONS)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"compare: {message}; see tools/compare --help\n")


def positive(kind):
    def parse(word):
        value = kind(word)
        if not 0 < value < float("inf"):
            raise ValueError
        return value
    parse.__name__ = "positive number"
    return parse


def sections_of(word):
    names = word.split(",")
    for name in names:
        if name not in plan.SECTIONS:
            raise argparse.ArgumentTypeError(f"no section '{name}'; there are {', '.join(plan.SECTIONS)}")
    return names


def parse(words):
    parser = Parser(prog="tools/compare", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    for name, text in (("quick", "ends within 15 minutes (the default)"), ("full", "several hours"),
                       ("smoke", "the smallest comparison there is: says only whether everything works")):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    parser.add_argument("--budget", type=positive(float), metavar="HOURS",
                        help="time it may take; a full one makes its runs so long (full: 6, quick: at most 0.25)")
    parser.add_argument("--seeds", type=positive(int), metavar="N", help="runs of each kind (quick: 1, full: 3)")
    parser.add_argument("--straggler-ms", type=positive(float), default=50.0, metavar="MS",
                        help="how long the straggler sleeps after each gradient (50)")
    parser.add_argument("--only", type=sections_of, default=list(plan.SECTIONS), metavar="SECTION,...",
                        help="these sections")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "build" / "data" / "mnist", metavar="DIR",
                        help="folder of MNIST (build/data/mnist)")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder for everything")
    given = parser.parse_args(words)
    given.mode = given.mode or "quick"
    if given.mode == "quick" and given.budget and given.budget > QUICK_MAX_H:
        parser.error(f"--quick takes at most {QUICK_MAX_H} hours: --budget is too large")
    return given


def mode_of(given):
    """The Mode for what was asked. A full one is as long as its budget allows, with fewer seeds if it has to be."""
    more = {} if given.budget is None else {"limit_s": given.budget * HOUR_S}
    if given.mode != "full":
        make = {"quick": plan.quick, "smoke": plan.smoke}[given.mode]
        return make(given.seeds or 1, given.straggler_ms, **more)
    limit_s = (given.budget or FULL_H) * HOUR_S

    def full(seeds, scale):
        return plan.full(seeds, given.straggler_ms, limit_s, scale)

    def cost_s(seeds, scale):
        return planned_s(plan.with_rate(run, {}) for run in plan.runs(full(seeds, scale)))
    for seeds in [given.seeds] if given.seeds else [3, 2, 1]:
        least = cost_s(seeds, SCALE_MIN)
        scale = SCALE_MIN + (1 - SCALE_MIN) * (PLANNED_SHARE * limit_s - least) / (cost_s(seeds, 1.0) - least)
        if scale >= SCALE_MIN:
            break
    return full(seeds, round(min(max(scale, SCALE_MIN), SCALE_MAX), 2))


def settings_of(given, mode):
    return {"mode": mode.name, "seeds": mode.seeds, "straggler_ms": mode.straggler_ms,
            "budget_hours": round(mode.limit_s / HOUR_S, 4)}


def say(line):
    print(line, flush=True)


def run_missing(given, mode, runs, store, began):
    """Runs what is not there yet. Raises ClusterError or KeyboardInterrupt, with no cluster left."""
    binaries = pathlib.Path(os.environ.get("GRADFS_BIN") or ROOT / "build" / "release" / "bin").resolve()
    cluster = Cluster(binaries, store.folder)
    estimator = Estimator()
    for run in runs:
        record = store.find(run)
        if record:
            estimator.learn(run, record["wall_seconds"], record["report"])
    trainer = Trainer(cluster, binaries / "gradfs-train", given.data.resolve(), store)
    schedule = Schedule(runs, store, estimator, trainer, began + mode.limit_s - mode.reserve_s, say)
    remaining = schedule.remaining()
    if not remaining:
        say(f"all {len(runs)} runs are there")
        return
    say(f"{len(remaining)} of {len(runs)} runs, about {schedule.expect_s(remaining) / 60:.0f} minutes"
        f" (at most {mode.limit_s / 60:.0f})")
    if not (given.data / "train-images-idx3-ubyte").exists() and not (given.data / "train-images.idx3-ubyte").exists():
        raise Refused(f"there is no MNIST in {given.data}: tools/get-mnist, or --data DIR")
    try:
        cluster.up()
        left_out = schedule()
    finally:
        cluster.down()
    if left_out:
        say(f"the time is up: {left_out} runs were left out; the same command makes them")


def write_results(given, mode, runs, store):
    """results.json, table.txt, results.md and plots; the results."""
    results = {"settings": settings_of(given, mode), "machine": machine.describe(),
               **summary.make(runs, store, given.only)}
    results["aims"] = aims.judge(results["sections"])
    drawn = plots.draw(results, store.folder / "plots") if plots.available() else []
    write_json(store.folder / "results.json", results)
    write_text(store.folder / "table.txt", tables.text(results))
    write_text(store.folder / "results.md", tables.markdown(results, drawn))
    return results


def tell(results, store):
    """What came of it; the exit status."""
    for model, rates in results["learning_rates"].items():
        say(f"learning rates, {plan.MODELS[model].label}: "
            + ", ".join(f"{name} {rates[name]:g}" for name in plan.ARCHITECTURES if name in rates))
    for aim in results["aims"]:
        say(f"{aims.verdict(aim):8} {aim['text']}: {aim['measured']}")
    say(f"results: {store.folder / 'results.md'}")
    status = 0
    if results["failed"]:
        error = results["failed"][0]
        complain(f"{len(results['failed'])} runs failed, such as {error['run']}: {error['error']}")
        status = 1
    if not plots.available():
        complain(f"no plots: apt-get install {plots.PACKAGE}, and the same command once more")
        status = 1
    return status


def complain(line):
    print(f"compare: {line}", file=sys.stderr, flush=True)


def compare(given, began):
    mode = mode_of(given)
    store = Store(given.out, settings_of(given, mode))
    whole = plan.runs(mode)
    tuned = {run for run in whole if run.section == "tune" and store.find(run)}  # choose rates, wanted or not
    run_missing(given, mode, [run for run in whole if run.section in given.only or run in tuned], store, began)
    return tell(write_results(given, mode, whole, store), store)


def main(words):
    began = time.monotonic()
    given = parse(words)
    interrupts.install()
    try:
        return compare(given, began)
    except (Refused, ClusterError) as error:
        complain(error)
        return 1
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error)
        return 1
    except KeyboardInterrupt:
        complain("stopped; the same command goes on where it was")
        return 130
