"""The results as tables: plain text for a terminal, Markdown for a page."""
import dataclasses

from comparison.aims import verdict
from comparison.plan import ARCHITECTURES, MODELS, TARGET_ACCURACY
from comparison.summary import LEFT_OUT

TARGET = f"{100 * TARGET_ACCURACY:g} %"


@dataclasses.dataclass
class Table:
    """rows: lists of strings. left: how many columns, from the first, are words. plots: files that show the same."""
    title: str
    header: list
    rows: list
    left: int
    note: str = ""
    plots: tuple = ()

    def text(self):
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows)]

        def line(cells):
            return "  ".join(cell.ljust(width) if index < self.left else cell.rjust(width)
                             for index, (cell, width) in enumerate(zip(cells, widths))).rstrip()
        lines = [self.title, "", line(self.header), line(["-" * width for width in widths])]
        return "\n".join(lines + [line(row) for row in self.rows] + ([self.note] if self.note else [])) + "\n"

    def markdown(self):
        def line(cells):
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        rule = "|" + "|".join("---" if index < self.left else "---:" for index in range(len(self.header))) + "|"
        lines = [f"## {self.title}", "", line(self.header), rule, *map(line, self.rows)]
        lines += ["", self.note] if self.note else []
        for plot in self.plots:
            lines += ["", f"![{plot}](plots/{plot}.svg)"]
        return "\n".join(lines) + "\n"


def figure(value, scale=1.0, digits=3):
    """A number with so many digits that count and no exponent; - where there is none."""
    if value is None:
        return "-"
    value *= scale
    if value == 0:
        return "0"
    size = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if abs(value) < 1:
        while abs(value) * 10 ** (size + 1) < 1 and size < 9:
            size += 1
        return f"{value:.{size + digits}f}"
    return f"{value:,.{max(0, digits - size)}f}"


def percent(value):
    return "-" if value is None else f"{100 * value:.2f}"


def by_architecture(entry):
    """(architecture, what it came to or None) in the usual order."""
    for architecture in ARCHITECTURES:
        if architecture in entry["architectures"] or architecture in entry["absent"]:
            yield architecture, entry["architectures"].get(architecture)


def absence(entry, architecture):
    """One word or two; the table of runs that are not there says why."""
    why = entry["absent"].get(architecture)
    return "" if why is None else why if why == LEFT_OUT else "failed"


def rows_of(entries, words, cells):
    """A row for each setting and architecture. words(entry) come before, cells are (header, function of what it came
    to) pairs; a run that is not there is called failed or left out in the first of them."""
    rows = []
    for entry in entries:
        for architecture, found in by_architecture(entry):
            values = [make(found) for _, make in cells] if found else [absence(entry, architecture)]
            values += [""] * (len(cells) - len(values))
            rows.append(words(entry) + [architecture] + values)
    return rows


SPEED_CELLS = [
    ("updates/s", lambda found: figure(found["updates_per_second"])),
    ("samples/s", lambda found: figure(found["samples_per_second"])),
    ("exchange ms", lambda found: figure(found["exchange_ms"])),
    ("p99 ms", lambda found: figure(found["exchange_p99_ms"])),
    ("x coprocessor", lambda found: figure(found["exchange_to_coprocessor"])),
    ("compute ms", lambda found: figure(found["compute_ms"])),
    ("MB/update", lambda found: figure(found["bytes_per_update"], 1e-6)),
    ("CPU ms/update", lambda found: figure(found["cpu_seconds_per_update"], 1e3)),
    ("servers' CPU ms", lambda found: figure(found["server_cpu_seconds_per_update"], 1e3)),
    ("peak MiB", lambda found: figure(found["peak_memory_bytes"], 2**-20)),
]


def speed_like(title, entries, note, plots=()):
    rows = rows_of(entries, lambda entry: [entry["label"], str(entry["batch"]), str(entry["workers"])], SPEED_CELLS)
    header = ["model", "batch", "workers", "architecture"] + [name for name, _ in SPEED_CELLS]
    return Table(title, header, rows, 4, note, plots)


def speed(entries):
    return speed_like("Speed", entries, "exchange: from a gradient in memory to the next parameters; x coprocessor: "
                      "how many times the coprocessor's; MB = 1,000,000 bytes.", ("updates", "exchange"))


def tiny(entries):
    return speed_like("A tiny model", entries, "Here the fixed cost of an exchange is all of it: gradfs should lose.")


def tune(entries):
    """A row for each model and architecture, a column for each rate."""
    rates = sorted({entry["rate"] for entry in entries})
    models = list(dict.fromkeys(entry["model"] for entry in entries))
    rows = []
    for model in models:
        its_entries = {entry["rate"]: entry for entry in entries if entry["model"] == model}
        for architecture in ARCHITECTURES:
            found = [its_entries.get(rate, {"architectures": {}})["architectures"].get(architecture) for rate in rates]
            losses = [one and one["train_loss"] for one in found]
            best = min((value for value in losses if value is not None), default=None)
            cells = [figure(value) + (" *" if value is not None and value == best else "") for value in losses]
            rows.append([MODELS[model].label, architecture, *cells])
    return Table("Learning rates", ["model", "architecture"] + [f"{rate:g}" for rate in rates], rows, 2,
                 "Training loss after the same time for all; * the least, which is used below (of equals the one with "
                 "the higher test accuracy), also for models that were not tuned.", ("tune",))


def accuracy(entries):
    cells = [
        ("lr", lambda found: f"{found['rate']:g}"),
        ("workers", lambda found: str(found["workers"])),
        (f"s to {TARGET}", lambda found: figure(found["seconds_to_target"])),
        (f"epochs to {TARGET}", lambda found: figure(found["epochs_to_target"])),
        ("s per epoch", lambda found: figure(found["seconds_per_epoch"])),
        ("accuracy %", lambda found: percent(found["test_accuracy"])),
        ("loss", lambda found: figure(found["train_loss"])),
        ("seconds", lambda found: figure(found["train_seconds"])),
        ("epochs", lambda found: figure(found["epochs"])),
        ("dropped", lambda found: figure(found["gradients_dropped"])),
        ("refused", lambda found: figure(found["gradients_refused"])),
        ("runs", lambda found: str(found["runs"])),
    ]
    rows = rows_of(entries, lambda entry: [entry["label"], str(entry["batch"])], cells)
    return Table("Accuracy", ["model", "batch", "architecture"] + [name for name, _ in cells], rows, 3,
                 "Accuracy and loss at the end; evaluations are made after the training and do not disturb it.",
                 ("loss-by-time", "accuracy-by-time", "accuracy-by-epoch", "time-to-accuracy"))


def straggler(entries):
    """A row for each architecture, a column with and one without."""
    entries = sorted(entries, key=lambda entry: entry["straggler_ms"])
    if len(entries) != 2:
        return None
    rows = []
    for architecture in ARCHITECTURES:
        found = [entry["architectures"].get(architecture, {}).get("samples_per_second") for entry in entries]
        if any(found) or any(architecture in entry["absent"] for entry in entries):
            kept = found[1] / found[0] if all(found) else None
            cells = [figure(value) if value is not None else absence(entry, architecture)
                     for value, entry in zip(found, entries)]
            rows.append([architecture, *cells, "-" if kept is None else f"{100 * kept:.0f}"])
    return Table(f"A straggler of {entries[1]['straggler_ms']:g} ms",
                 ["architecture", "samples/s without", "samples/s with", "kept %"], rows, 1,
                 f"{entries[0]['label']}, batch {entries[0]['batch']}, 2 workers; the last one sleeps after each "
                 "gradient.", ("straggler",))


def partitions(entries):
    cells = [
        ("s per epoch", lambda found: figure(found["seconds_per_epoch"])),
        ("accuracy %", lambda found: percent(found["test_accuracy"])),
        ("epochs", lambda found: figure(found["epochs"])),
        ("updates/s", lambda found: figure(found["updates_per_second"])),
    ]
    rows = rows_of(entries, lambda entry: [entry["label"], str(entry["batch"]), str(entry["partitions"])], cells)
    return Table("Partitions", ["model", "batch", "partitions", "architecture"] + [name for name, _ in cells], rows, 4,
                 "2 workers take the partitions in turn.", ("partitions",))


TABLES = {"speed": speed, "tune": tune, "accuracy": accuracy, "tiny": tiny, "straggler": straggler,
          "partitions": partitions}


def aims(judgements):
    rows = [[verdict(aim), aim["text"], aim["measured"]] for aim in judgements]
    return Table("Aims", ["", "aim", "measured"], rows, 3)


def undone(results):
    """The runs that failed or were left out; None if there are none."""
    rows = [["failed", failed["run"], failed["error"]] for failed in results["failed"]]
    rows += [["left out", key, ""] for key in results["missing"]]
    return Table("Runs that are not there", ["", "run", "why"], rows, 3) if rows else None


def all_tables(results):
    found = [aims(results["aims"])]
    found += [TABLES[section](entries) for section, entries in results["sections"].items() if entries]
    found.append(undone(results))
    return [table for table in found if table]


def heading(results):
    machine = results["machine"]
    seeds = results["settings"]["seeds"]
    return (f"{machine['processor']}, {machine['processors']} processors, {machine['memory_gib']} GiB, Linux "
            f"{machine['kernel']}, {machine['date']}; tools/compare --{results['settings']['mode']}, "
            f"{seeds} {'run' if seeds == 1 else 'runs'} each, more where they are short, medians.")


def text(results):
    return "\n".join([heading(results) + "\n"] + [table.text() for table in all_tables(results)])


def markdown(results, plots):
    """plots: names of those that were made."""
    parts = ["# Comparison\n", heading(results) + "\n"]
    for table in all_tables(results):
        parts.append(dataclasses.replace(table, plots=tuple(name for name in table.plots if name in plots)).markdown())
    return "\n".join(parts)
