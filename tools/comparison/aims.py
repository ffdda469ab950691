"""What the coprocessor is to be, measured: each aim with its worst case. passed: None where too little was measured."""
from comparison.plan import SIZES, TALK, TARGET_ACCURACY

OTHERS = tuple(name for name in TALK if name != "coprocessor")
EXCHANGE_MAX = 0.5
EPOCHS_MAX = 1.1


def where(entry):
    return f"{entry['label']}, batch {entry['batch']}, workers {entry['workers']}"


def compared(entries, name):
    """(the coprocessor's figure over another's, where) for each speed setting; None for one that is not there."""
    for entry in entries:
        for other in OTHERS:
            own = entry["architectures"].get("coprocessor", {}).get(name)
            its = entry["architectures"].get(other, {}).get(name)
            yield own / its if own is not None and its else None, f"{other}, {where(entry)}"


def judged(pairs, is_good, worst):
    """(passed, measured) of pairs as compared() gives them: all of them have to be good."""
    known = [pair for pair in pairs if pair[0] is not None]
    if not known:
        return None, "not measured"
    value, place = worst(known, key=lambda pair: pair[0])
    measured = f"worst {value:.2f} ({place}); {sum(is_good(pair[0]) for pair in known)} of {len(pairs)} hold"
    if len(known) < len(pairs):
        measured += f", {len(pairs) - len(known)} not measured"
    return (False if not is_good(value) else True if len(known) == len(pairs) else None), measured


def exchange(sections):
    entries = [entry for entry in sections.get("speed", []) if entry["model"] in SIZES]
    return judged(list(compared(entries, "exchange_ms")), lambda ratio: ratio <= EXCHANGE_MAX, max)


def updates(sections):
    entries = [entry for entry in sections.get("speed", []) if entry["model"] in SIZES]
    return judged(list(compared(entries, "updates_per_second")), lambda ratio: ratio > 1, min)


def mnist(sections):
    """What each architecture came to in training MNIST to its target."""
    return next((entry["architectures"] for entry in sections.get("accuracy", []) if entry["model"] == "mnist"), {})


def first(sections):
    found = mnist(sections)
    missing = [name for name in TALK if name not in found]
    seconds = {name: found[name]["seconds_to_target"] for name in TALK if name in found}
    if not seconds:
        return None, "not measured"
    measured = ", ".join(f"{name} {'never' if value is None else f'{value:.1f} s'}" for name, value in seconds.items())
    if missing:
        return None, f"{measured}; not measured: {', '.join(missing)}"
    own = seconds.pop("coprocessor")
    return own is not None and all(value is None or own < value for value in seconds.values()), measured


def epochs(sections):
    found = mnist(sections)
    if "coprocessor" not in found or "local" not in found:
        return None, "not measured"
    own, local = found["coprocessor"]["epochs_to_target"], found["local"]["epochs_to_target"]
    if own is None or local is None:
        text = ["never" if value is None else f"{value:.2f} epochs" for value in (own, local)]
        return (False if own is None else None), f"coprocessor {text[0]}, local {text[1]}"
    return own <= EPOCHS_MAX * local, f"{own / local:.2f} ({own:.2f} to {local:.2f} epochs)"


AIMS = (
    ("exchange", f"the coprocessor's exchange takes at most {EXCHANGE_MAX} of that of {', '.join(OTHERS)}", exchange),
    ("updates", f"it makes more updates a second than {', '.join(OTHERS)}", updates),
    ("first", f"it is the first of the talk's four to have MNIST at {100 * TARGET_ACCURACY:g} %", first),
    ("epochs", f"it needs at most {EPOCHS_MAX} times the epochs of one process for that", epochs),
)


def judge(sections):
    """A list of {name, text, passed, measured}."""
    judgements = []
    for name, text, look in AIMS:
        passed, measured = look(sections)
        judgements.append({"name": name, "text": text, "passed": passed, "measured": measured})
    return judgements


def verdict(aim):
    return {True: "met", False: "MISSED", None: "unknown"}[aim["passed"]]
