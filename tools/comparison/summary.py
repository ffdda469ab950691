"""From the store to results: medians over seeds, ratios to the coprocessor, learning rates, what is missing."""
import statistics

from comparison.plan import MODELS, SECTIONS, TARGET_ACCURACY, with_rate

LEFT_OUT = "left out"

# What tells the settings of a section apart; in each of them all architectures are compared.
GROUPS = {
    "speed": ("model", "batch", "workers"),
    "tiny": ("model", "batch", "workers"),
    "tune": ("model", "batch", "rate"),
    "accuracy": ("model", "batch"),
    "straggler": ("model", "batch", "straggler_ms"),
    "partitions": ("model", "batch", "partitions"),
}


def ratio(a, b):
    """a / b; None where there is none."""
    return a / b if a is not None and b else None


def first_at(history, accuracy, field):
    """seconds or epoch of the first evaluation at or above an accuracy; None if no evaluation was."""
    return next((point[field] for point in history or []
                 if point.get("test_accuracy") is not None and point["test_accuracy"] >= accuracy), None)


def measures(report):
    """The figures of one report, each by a name that says its unit; None where there is none."""
    get = report.get
    updates = None
    if get("updates_per_second") is not None and get("train_seconds") is not None:
        updates = get("updates_per_second") * get("train_seconds")
    exchange, compute = get("exchange_ms") or {}, get("compute_ms") or {}
    return {
        "updates_per_second": get("updates_per_second"),
        "samples_per_second": get("samples_per_second"),
        "exchange_ms": exchange.get("median"),
        "exchange_p99_ms": exchange.get("p99"),
        "compute_ms": compute.get("median"),
        "compute_p99_ms": compute.get("p99"),
        "bytes_per_update": ratio(get("bytes_moved"), updates),
        "cpu_seconds_per_update": ratio(get("cpu_seconds"), updates),
        "server_cpu_seconds_per_update": ratio(get("server_cpu_seconds"), updates),
        "peak_memory_bytes": get("peak_memory_bytes"),
        "train_seconds": get("train_seconds"),
        "seconds_per_epoch": ratio(get("train_seconds"), get("epochs_completed")),
        "epochs": get("epochs_completed"),
        "test_accuracy": get("test_accuracy"),
        "train_loss": get("train_loss"),
        "gradients_dropped": get("gradients_dropped"),
        "gradients_refused": get("gradients_refused"),
    }


def median(values, never=None):
    """Of the values that are there. never: what None stands for, if it counts; a median of that is None again."""
    values = [never if value is None else value for value in values]
    values = [value for value in values if value is not None]
    if not values:
        return None
    middle = statistics.median(values)
    return None if middle == float("inf") else middle


def combined(reports):
    """Medians over the runs of one architecture in one setting."""
    each = [measures(report) for report in reports]
    return {"runs": len(reports), **{name: median(one[name] for one in each) for name in each[0]}}


def convergence(model, reports):
    """Time and epochs to the target, which only MNIST has; a run that does not get there counts as endless."""
    def reach(field):
        if MODELS[model].dataset != "mnist":
            return None
        return median((first_at(report.get("history"), TARGET_ACCURACY, field) for report in reports), float("inf"))
    return {"seconds_to_target": reach("seconds"), "epochs_to_target": reach("epoch"),
            "curves": [report.get("history") or [] for report in reports]}


def chosen_rates(runs, store):
    """{model: {architecture: rate}}: the rate with the least training loss at the end, which is of many samples and so
    less left to chance than an accuracy; of several the one with the highest test accuracy."""
    best = {}
    for run in runs:
        report = store.report(run) if run.section == "tune" else None
        if report and report.get("train_loss") is not None:
            rank = (report["train_loss"], -(report.get("test_accuracy") or 0))
            kind = run.model, run.architecture
            if kind not in best or rank < best[kind][0]:
                best[kind] = rank, run.rate
    rates = {}
    for (model, architecture), (_, rate) in best.items():
        rates.setdefault(model, {})[architecture] = rate
    return rates


def settings_of(section, runs, store):
    """One entry a setting of the section, with what each architecture came to in it."""
    groups = {}
    for run in runs:
        names = tuple((name, getattr(run, name)) for name in GROUPS[section])
        groups.setdefault(names, {}).setdefault(run.architecture, []).append(run)
    entries = []
    for names, by_architecture in groups.items():
        entry = {**dict(names), "label": MODELS[dict(names)["model"]].label, "architectures": {}, "absent": {}}
        for architecture, its_runs in by_architecture.items():
            reports = [report for report in map(store.report, its_runs) if report]
            if reports:
                found = combined(reports)
                if section == "accuracy":
                    found.update(rate=its_runs[0].rate, workers=its_runs[0].workers)
                    found.update(convergence(entry["model"], reports))
                entry["architectures"][architecture] = found
            else:
                errors = filter(None, map(store.error, its_runs))
                entry["absent"][architecture] = next(errors, LEFT_OUT)
        compare_with_coprocessor(entry["architectures"])
        entries.append(entry)
    return entries


def compare_with_coprocessor(by_architecture):
    """Adds how many times the coprocessor's exchange, and what part of its updates a second, each other has."""
    base = by_architecture.get("coprocessor", {})
    for found in by_architecture.values():
        found["exchange_to_coprocessor"] = ratio(found["exchange_ms"], base.get("exchange_ms"))
        found["updates_to_coprocessor"] = ratio(found["updates_per_second"], base.get("updates_per_second"))


def make(runs, store, selected):
    """runs: the whole plan. selected: the sections whose missing runs are to be named."""
    rates = chosen_rates(runs, store)
    resolved = [with_rate(run, rates) for run in runs]
    sections, missing, failed = {}, [], []
    for section in SECTIONS:
        its_runs = [run for run in resolved if run.section == section]
        undone = [run for run in its_runs if not store.find(run)]
        if section in selected or len(undone) < len(its_runs):
            sections[section] = settings_of(section, its_runs, store)
        for run in undone:
            error = store.error(run)
            if error:
                failed.append({"run": run.key, "error": error})
            elif section in selected:
                missing.append(run.key)
    return {"learning_rates": rates, "sections": sections, "missing": missing, "failed": failed}
