#!/usr/bin/python3 -ISE
"""fsctl and gradfs-train in one, by the name it is called by, for the tests of tools/compare.

FAKE_STATE is a folder: `up` says where a cluster runs, `calls` what was called. FAKE_FAIL: an architecture that fails;
FAKE_SLEEP_S: how long a run takes; FAKE_SLOW: only that of this architecture.
"""
import json, math, os, shutil, signal, sys, time
state, words = os.environ["FAKE_STATE"], sys.argv[1:]
up = os.path.join(state, "up")

def die(line, code=1):
    print(os.path.basename(sys.argv[0]) + ": " + line, file=sys.stderr)
    sys.exit(code)

def option(name, default=None):
    return words[words.index(name) + 1] if name in words else default

def mounted():
    if not os.path.exists(up):
        die("no cluster")
    folder, mount, master = open(up).read().split()
    if os.environ.get("GRADFS_MASTER") != master:
        die("no master at " + str(os.environ.get("GRADFS_MASTER")))
    return mount

def fsctl():
    if words[:2] == ["cluster", "up"]:
        if os.path.exists(up):
            die("a cluster runs already")
        for folder in (option("--dir"), option("--mount") + "/models"):
            os.makedirs(folder, exist_ok=True)
        with open(up, "w") as f:
            f.write(" ".join([option("--dir"), option("--mount"), os.environ["GRADFS_MASTER"]]))
    elif words[:2] == ["cluster", "down"] and "--purge" in words and "--yes" in words:
        if os.path.exists(up):
            folder, mount, _ = open(up).read().split()
            if folder != option("--dir"):
                die("not this cluster")
            shutil.rmtree(mount + "/models")
            os.unlink(up)
    elif words[:2] == ["model", "create"]:
        folder = mounted() + words[2]
        os.mkdir(folder)
        config = {"plain": "--plain" in words, "lr": option("--lr"), "layers": option("--layers")}
        json.dump(config, open(folder + "/config", "w"))
    else:
        die("what is " + " ".join(words) + "?", 2)

def train():
    with open(os.path.join(state, "trainer"), "w") as f:
        f.write(str(os.getpid()))
    config = json.load(open(option("--model") + "/config"))
    assert option("--model").startswith(mounted())
    architecture, workers = option("--architecture"), int(option("--workers"))
    bound = architecture == "coprocessor"
    if config["plain"] == bound or ("--lr" in words) == bound or ("--optimizer" in words) == bound:
        die("wrong model or options for " + architecture, 2)
    if architecture == "local" and workers != 1:
        die("local is one process", 2)
    if ("--epochs" in words) == ("--max-seconds" in words):
        die("--epochs or --max-seconds", 2)
    if architecture == os.environ.get("FAKE_FAIL"):
        die("the " + architecture + " is on fire")
    if os.environ.get("FAKE_SLOW", architecture) == architecture:
        time.sleep(float(os.environ.get("FAKE_SLEEP_S", "0")))
    rate = float(config["lr"] if bound else option("--lr"))
    best = 2e-3 if bound else 1e-3
    accuracy = 0.98 - 0.1 * abs(math.log10(rate / best))
    speed = {"coprocessor": 400, "allreduce": 300, "local": 250, "paramserver": 150, "storage": 90, "broadcast": 40}
    updates = speed[architecture] * (0.5 if float(option("--straggler-ms", "0")) else 1)
    seconds, batch = 2.0, int(option("--batch-size"))
    history = [{"seconds": 0.5 * n, "epoch": 0.25 * n, "loss": 1 / (1 + n), "test_accuracy": accuracy * n / (n + 0.01)}
               for n in range(1, 5)]
    report = {"architecture": architecture, "train_seconds": seconds, "samples_per_second": updates * batch,
              "gradients_applied": int(updates * seconds), "gradients_dropped": 0, "gradients_refused": 0,
              "updates_per_second": updates, "exchange_ms": {"median": 1000 / updates, "p99": 3000 / updates},
              "compute_ms": {"median": 1.5, "p99": 2.5}, "bytes_moved": 8000000 * updates * seconds,
              "cpu_seconds": 1.9 * seconds, "server_cpu_seconds": None, "peak_memory_bytes": 1 << 28,
              "test_accuracy": accuracy, "train_loss": 1 - accuracy, "epochs_completed": 1.0, "history": history,
              "workers_lost": [], "interrupted": False}
    with open(option("--report"), "w") as f:
        json.dump(report, f)

name = os.path.basename(sys.argv[0])
with open(os.path.join(state, "calls"), "a") as f:
    f.write(json.dumps([name, *words]) + "\n")
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
fsctl() if name == "fsctl" else train()
