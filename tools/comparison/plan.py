"""What a comparison consists of: models, architectures, modes, and the runs in the order in which they are made."""
import dataclasses

TALK = ("broadcast", "storage", "paramserver", "coprocessor")  # the talk's four
DISTRIBUTED = TALK + ("allreduce",)
ARCHITECTURES = DISTRIBUTED + ("local",)  # local is one process, the reference for convergence
SECTIONS = ("speed", "tune", "accuracy", "tiny", "straggler", "partitions")

OPTIMIZER = "adam"
DEFAULT_RATE = 1e-3
TARGET_ACCURACY = 0.975  # of MNIST
TUNE_SEED = 100          # none of the seeds that are reported
NEVER = 1000.0           # epochs between evaluations: only at the end
SPEED_ROWS = 20000, 256  # to train on and to test with, of data sets that are made


@dataclasses.dataclass(frozen=True)
class Model:
    """A network and its data. The last three are guesses, used until there are measurements: samples a second in
    training, seconds of a run besides training, seconds of an evaluation."""
    label: str
    dataset: str
    layers: str
    samples_per_second: float
    overhead_s: float
    evaluation_s: float


MODELS = {
    "tiny": Model("12.7K", "mnist", "784,16,10", 100000, 0.8, 0.02),
    "mnist": Model("1.86M", "mnist", "784,1024,1024,10", 8500, 1.2, 0.4),
    "higgs": Model("8.45M", "higgs", "28,2048,2048,2048,2", 2000, 1.6, 0.25),
    "molecular": Model("14.3M", "molecular", "2871,2048,2048,2048,15", 1200, 2.2, 0.4),
}
MNIST_ROWS = 60000
SIZES = ("mnist", "higgs", "molecular")


@dataclasses.dataclass(frozen=True)
class Run:
    """One gradfs-train. Either seconds or epochs is given. rate: None for the one that tuning chooses."""
    section: str
    model: str
    architecture: str
    workers: int
    batch: int
    seed: int
    seconds: float | None = None
    epochs: float | None = None
    rate: float | None = None
    evaluate_every: float = NEVER
    rows: int | None = None       # to train on and to test with, of a data set that is made; MNIST has its own
    test_rows: int | None = None
    partitions: int | None = None
    straggler_ms: float | None = None

    @property
    def key(self):
        """Its name as a file; runs of one comparison differ in it."""
        parts = [self.section, self.model, self.architecture, f"w{self.workers}", f"b{self.batch}"]
        if self.partitions is not None:
            parts.append(f"p{self.partitions}")
        if self.straggler_ms is not None:
            parts.append(f"delay{self.straggler_ms:g}")
        return "-".join(parts + [f"lr{self.rate:g}" if self.rate is not None else "lr", f"s{self.seed}"])


@dataclasses.dataclass(frozen=True)
class Extent:
    """How long a run of `accuracy` or `tune` is, either by time or by epochs, and how often it is evaluated. rows: as
    in Run."""
    batch: int
    seconds: float | None = None
    epochs: float | None = None
    every: float = NEVER
    rows: int = 20000
    test_rows: int = 2000


@dataclasses.dataclass(frozen=True)
class Mode:
    """limit_s: all of it must have ended then; reserve_s: of that, for stopping the cluster and the plots.
    convergence_seeds: runs of the coprocessor and of local to the target, if those are more than seeds: one run says
    little about epochs."""
    name: str
    seeds: int
    convergence_seeds: int
    limit_s: float
    reserve_s: float
    speed: dict            # model -> (seconds a run, runs a seed)
    batches: tuple
    rates: tuple
    tune: dict             # model -> Extent
    accuracy: dict         # model -> Extent; the first is the one with a target
    main_model: str        # of straggler and partitions
    straggler_ms: float
    straggler_s: float
    tiny_s: float
    partitions: tuple
    partition_architectures: tuple
    partition_epochs: int


def quick(seeds, straggler_ms, limit_s=870):
    """Ends within 15 minutes on two processors."""
    return Mode("quick", seeds, 3, limit_s, 30, speed={"mnist": (1.2, 3), "higgs": (2, 1), "molecular": (2, 1)},
                batches=(8, 32), rates=(2.5e-4, 5e-4, 1e-3), tune={"mnist": Extent(32, seconds=4)},
                accuracy={"mnist": Extent(32, epochs=1.4, every=0.05),
                          "higgs": Extent(64, seconds=4, every=0.05),
                          "molecular": Extent(64, seconds=4, every=0.05)},
                main_model="mnist", straggler_ms=straggler_ms, straggler_s=2, tiny_s=1.5, partitions=(2, 8, 32, 128),
                partition_architectures=("coprocessor",), partition_epochs=1)


def full(seeds, straggler_ms, limit_s, scale=1.0):
    """scale: of the seconds of all runs that are not counted in epochs."""
    def long(seconds):
        return round(seconds * scale, 1)
    rows = 100000
    return Mode("full", seeds, 3, limit_s, 120, speed={model: (long(10), 1) for model in SIZES}, batches=(8, 32),
                rates=(1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3),
                tune={"mnist": Extent(32, epochs=1), "higgs": Extent(64, seconds=long(40), rows=rows),
                      "molecular": Extent(64, seconds=long(40), rows=rows)},
                accuracy={"mnist": Extent(32, epochs=3, every=0.05),
                          "higgs": Extent(64, seconds=long(180), every=0.1, rows=rows),
                          "molecular": Extent(64, seconds=long(180), every=0.1, rows=rows)},
                main_model="mnist", straggler_ms=straggler_ms, straggler_s=long(15), tiny_s=long(10),
                partitions=(2, 8, 32, 128), partition_architectures=TALK, partition_epochs=3)


def smoke(seeds, straggler_ms, limit_s=600):
    """Says only whether everything works."""
    return Mode("smoke", seeds, 1, limit_s, 5, speed={"tiny": (1, 1)}, batches=(8,), rates=(1e-3, 2e-3),
                tune={"tiny": Extent(128, seconds=1)}, accuracy={"tiny": Extent(128, seconds=1, every=0.5)},
                main_model="tiny", straggler_ms=straggler_ms, straggler_s=1, tiny_s=1, partitions=(2, 4),
                partition_architectures=("coprocessor",), partition_epochs=1)


def workers_of(architecture, workers):
    return 1 if architecture == "local" else workers


def in_turn(architectures, repetition):
    """Each repetition begins with another architecture."""
    first = repetition % len(architectures)
    return architectures[first:] + architectures[:first]


def made_rows(model, rows, test_rows):
    return {} if MODELS[model].dataset == "mnist" else {"rows": rows, "test_rows": test_rows}


def speed(mode):
    repetitions = max(times for _, times in mode.speed.values())
    for seed in range(1, mode.seeds * repetitions + 1):
        for model, (seconds, times) in mode.speed.items():
            if seed > mode.seeds * times:
                continue
            for batch in mode.batches:
                for workers in (1, 2):
                    for architecture in in_turn(ARCHITECTURES if workers == 1 else DISTRIBUTED, seed - 1):
                        yield Run("speed", model, architecture, workers, batch, seed, seconds=seconds,
                                  rate=DEFAULT_RATE, **made_rows(model, *SPEED_ROWS))


def tune(mode):
    for model, extent in mode.tune.items():
        for index, rate in enumerate(mode.rates):
            for architecture in in_turn(ARCHITECTURES, index):
                yield Run("tune", model, architecture, workers_of(architecture, 2), extent.batch, TUNE_SEED,
                          extent.seconds, extent.epochs, rate, extent.every,
                          **made_rows(model, extent.rows, extent.test_rows))


def accuracy(mode, models):
    for seed in range(1, max(mode.seeds, mode.convergence_seeds) + 1):
        architectures = ARCHITECTURES if seed <= mode.seeds else ("coprocessor", "local")
        for model in models:
            extent = mode.accuracy[model]
            if seed > mode.seeds and extent.epochs is None:
                continue  # it has no target
            for architecture in in_turn(architectures, seed - 1):
                yield Run("accuracy", model, architecture, workers_of(architecture, 2), extent.batch, seed,
                          extent.seconds, extent.epochs, None, extent.every,
                          **made_rows(model, extent.rows, extent.test_rows))


def tiny(mode):
    for seed in range(1, mode.seeds + 1):
        for architecture in in_turn(DISTRIBUTED, seed - 1):
            yield Run("tiny", "tiny", architecture, 2, 8, seed, seconds=mode.tiny_s)


def straggler(mode):
    for seed in range(1, mode.seeds + 1):
        for architecture in in_turn(DISTRIBUTED, seed - 1):
            for delay_ms in (0.0, mode.straggler_ms):  # beside each other: a noisy minute hits both
                yield Run("straggler", mode.main_model, architecture, 2, 32, seed, seconds=mode.straggler_s,
                          straggler_ms=delay_ms)


def partitions(mode):
    for seed in range(1, mode.seeds + 1):
        for count in mode.partitions:
            for architecture in in_turn(mode.partition_architectures, seed - 1):
                yield Run("partitions", mode.main_model, architecture, 2, 128, seed, epochs=mode.partition_epochs,
                          partitions=count)


def runs(mode, sections=SECTIONS):
    """All runs, the most important first."""
    first, *others = mode.accuracy
    stages = [("speed", speed(mode)), ("tune", tune(mode)), ("accuracy", accuracy(mode, [first])),
              ("tiny", tiny(mode)), ("straggler", straggler(mode)), ("partitions", partitions(mode)),
              ("accuracy", accuracy(mode, others))]
    return [run for section, stage in stages if section in sections for run in stage]


def with_rate(run, rates):
    """The run with its learning rate. rates: {model: {architecture: rate}}, as tuning chose them. A model that was not
    tuned takes the rates of the first that was; without any, DEFAULT_RATE."""
    if run.rate is not None:
        return run
    of_model = rates.get(run.model) or next(iter(rates.values()), {})
    return dataclasses.replace(run, rate=of_model.get(run.architecture, DEFAULT_RATE))
