"""The results as SVG files. Needs Debian's python3-matplotlib, which is imported when a plot is drawn."""
from comparison.plan import ARCHITECTURES, MODELS, TARGET_ACCURACY

COLOURS = {"broadcast": "#e69f00", "storage": "#56b4e9", "paramserver": "#009e73", "coprocessor": "#d55e00",
           "allreduce": "#0072b2", "local": "#7f7f7f"}
PACKAGE = "python3-matplotlib"


def available():
    try:
        import matplotlib
    except ImportError:
        return False
    return True


def pyplot():
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gradfs", "font.size": 10, "axes.grid": True,
                         "grid.alpha": 0.3, "axes.axisbelow": True, "axes.spines.top": False,
                         "axes.spines.right": False})
    return plt


def panels(columns, rows=1):
    """A figure and its axes, row by row."""
    figure, axes = pyplot().subplots(rows, columns, figsize=(max(7.5, 1.5 + 4.2 * columns), 1.2 + 3.2 * rows),
                                      squeeze=False)
    return figure, axes


def legend(figure, names):
    """One for all panels, below them."""
    from matplotlib.patches import Patch
    names = [name for name in ARCHITECTURES if name in names]
    figure.tight_layout(rect=(0, 0.45 / figure.get_figheight(), 1, 1))
    figure.legend(handles=[Patch(color=COLOURS[name], label=name) for name in names], loc="lower center",
                  ncol=len(names), frameon=False)


def logarithmic(axes, bottom):
    """Up from bottom, with 1, 2 and 5 of each decade written out."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
    axes.set_yscale("log")
    axes.set_ylim(bottom=bottom)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def bars(axes, groups, values, log=False):
    """groups: labels below; values: {architecture: one value or None for each group}."""
    names = [name for name in ARCHITECTURES if name in values]
    width = 0.8 / max(1, len(names))
    for index, name in enumerate(names):
        at = [group + (index - (len(names) - 1) / 2) * width for group in range(len(groups))]
        shown = [(x, value) for x, value in zip(at, values[name]) if value is not None]
        axes.bar([x for x, _ in shown], [value for _, value in shown], width, color=COLOURS[name], label=name)
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(axis="x", visible=False)
    heights = [value for row in values.values() for value in row if value]
    if log and heights:
        logarithmic(axes, min(heights) / 2)


def values_of(entries, name):
    """{architecture: its figure of that name in each entry}, without those that have none at all."""
    found = {architecture: [entry["architectures"].get(architecture, {}).get(name) for entry in entries]
             for architecture in ARCHITECTURES}
    return {architecture: values for architecture, values in found.items() if any(v is not None for v in values)}


def speed_bars(entries, name, label, log):
    """A panel for each model and number of workers, a group for each batch size."""
    models = list(dict.fromkeys(entry["model"] for entry in entries))
    workers = sorted({entry["workers"] for entry in entries})
    figure, axes = panels(len(models), len(workers))
    seen = set()
    for row, count in enumerate(workers):
        for column, model in enumerate(models):
            here = [entry for entry in entries if entry["model"] == model and entry["workers"] == count]
            values = values_of(here, name)
            seen |= set(values)
            bars(axes[row][column], [f"batch {entry['batch']}" for entry in here], values, log)
            axes[row][column].set_title(f"{MODELS[model].label} parameters, {count} worker{'s' if count > 1 else ''}")
            axes[row][column].set_ylabel(label)
    legend(figure, seen)
    return figure


def curves(entries, across, along, across_label, along_label, scale=1.0):
    """A panel for each model, a line for each run; of along, in units of scale."""
    entries = [entry for entry in entries if any(found["curves"] for found in entry["architectures"].values())]
    figure, axes = panels(len(entries))
    for axis, entry in zip(axes[0], entries):
        for architecture, found in entry["architectures"].items():
            for curve in found["curves"]:
                points = [(point[across], scale * point[along]) for point in curve
                          if point.get(across) is not None and point.get(along) is not None]
                axis.plot([x for x, _ in points], [y for _, y in points], color=COLOURS[architecture], linewidth=1.4,
                          marker="o" if len(points) == 1 else "", alpha=1 if len(found["curves"]) == 1 else 0.7)
        axis.set_title(f"{MODELS[entry['model']].label} parameters, {MODELS[entry['model']].dataset}")
        axis.set_xlabel(across_label)
        axis.set_ylabel(along_label)
        if along == "test_accuracy" and MODELS[entry["model"]].dataset == "mnist":
            axis.axhline(100 * TARGET_ACCURACY, color="black", linewidth=0.8, linestyle=":")
            axis.set_ylim(bottom=max(axis.get_ylim()[0], 90))
    legend(figure, {name for entry in entries for name in entry["architectures"]})
    return figure


def time_to_accuracy(entries):
    figure, axes = panels(2)
    shown = entries[:1]
    for axis, name, label in zip(axes[0], ("seconds_to_target", "epochs_to_target"), ("seconds", "epochs")):
        values = values_of(shown, name)
        bars(axis, [f"{shown[0]['label']} parameters"], values)
        axis.set_ylabel(f"{label} to {100 * TARGET_ACCURACY:g} % test accuracy")
        if not values:
            axis.text(0.5, 0.5, "not reached", transform=axis.transAxes, ha="center")
    legend(figure, set(shown[0]["architectures"]))
    return figure


def partitions(entries):
    figure, axes = panels(2)
    counts = [entry["partitions"] for entry in entries]
    for axis, name, label, scale in ((axes[0][0], "seconds_per_epoch", "seconds an epoch", 1),
                                     (axes[0][1], "test_accuracy", "test accuracy, %", 100)):
        for architecture, values in values_of(entries, name).items():
            points = [(count, scale * value) for count, value in zip(counts, values) if value is not None]
            axis.plot([x for x, _ in points], [y for _, y in points], color=COLOURS[architecture], marker="o")
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set_xlabel("partitions")
        axis.set_ylabel(label)
    axes[0][0].set_ylim(bottom=0)
    legend(figure, {name for entry in entries for name in entry["architectures"]})
    return figure


def straggler(entries):
    entries = sorted(entries, key=lambda entry: entry["straggler_ms"])
    values = values_of(entries, "samples_per_second")
    figure, axes = panels(1)
    groups = [f"a straggler of {entry['straggler_ms']:g} ms" if entry["straggler_ms"] else "no straggler"
              for entry in entries]
    bars(axes[0][0], groups, values)
    axes[0][0].set_ylabel("samples a second")
    legend(figure, values)
    return figure


def tune(entries):
    models = list(dict.fromkeys(entry["model"] for entry in entries))
    figure, axes = panels(len(models))
    for axis, model in zip(axes[0], models):
        here = sorted((entry for entry in entries if entry["model"] == model), key=lambda entry: entry["rate"])
        for architecture, values in values_of(here, "train_loss").items():
            points = [(entry["rate"], value) for entry, value in zip(here, values) if value is not None]
            axis.plot([x for x, _ in points], [y for _, y in points], color=COLOURS[architecture], marker="o")
        axis.set_xscale("log")
        axis.set_xticks([entry["rate"] for entry in here], [f"{entry['rate']:g}" for entry in here])
        axis.minorticks_off()
        axis.set_title(f"{MODELS[model].label} parameters, {MODELS[model].dataset}")
        axis.set_xlabel("learning rate")
        axis.set_ylabel("training loss")
    legend(figure, {name for entry in entries for name in entry["architectures"]})
    return figure


# name -> (section, what draws it)
PLOTS = {
    "updates": ("speed", lambda entries: speed_bars(entries, "updates_per_second", "updates a second", False)),
    "exchange": ("speed", lambda entries: speed_bars(entries, "exchange_ms", "exchange, ms (median)", True)),
    "tune": ("tune", tune),
    "loss-by-time": ("accuracy", lambda entries: curves(entries, "seconds", "loss", "seconds", "training loss")),
    "accuracy-by-time": ("accuracy", lambda entries: curves(entries, "seconds", "test_accuracy", "seconds",
                                                            "test accuracy, %", 100)),
    "accuracy-by-epoch": ("accuracy", lambda entries: curves(entries, "epoch", "test_accuracy", "epochs",
                                                             "test accuracy, %", 100)),
    "time-to-accuracy": ("accuracy", time_to_accuracy),
    "partitions": ("partitions", partitions),
    "straggler": ("straggler", straggler),
}


def draw(results, folder):
    """Writes folder/NAME.svg for each section that has anything to show; the names."""
    folder.mkdir(exist_ok=True)
    drawn = []
    for name, (section, make) in PLOTS.items():
        entries = [entry for entry in results["sections"].get(section, []) if entry["architectures"]]
        if entries:
            figure = make(entries)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            pyplot().close(figure)
            drawn.append(name)
        else:
            (folder / f"{name}.svg").unlink(missing_ok=True)
    return drawn
