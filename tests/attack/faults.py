"""The faults: what is done to the folder and the process, which command is called, and with which status it may end.

Each folder holds a small trained run, records, images, a schedule, a model and an adapter (`prepare`).
"""

import itertools
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REFUSED, DONE = (2,), (0,)
EITHER = (0, 2)
HUGE = "9" * 30
DIGITS = "9" * 5000


def nothing() -> None:
    """No preparation."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        group: what it is about.
        name: what it is.
        words: the command line.
        status: with which it may end.
        setup: done in the process, in the folder, beforehand.
        changes: whether files that were there may change.
    """

    group: str
    name: str
    words: tuple[str, ...]
    status: tuple[int, ...] = REFUSED
    setup: Callable[[], None] = nothing
    changes: bool = False


TRAIN = "train --network article --set T=5 --set batch_size=6 --steps 1 --sampler-steps 1"
VERIFY = "verify --law I9-kl"
MODEL = "--data digits --T 5 --evaluations 64"

MODELS = """
import os, sys, torch
def good(): return lambda x, t: 0 * x
def none(): return None
def text(): return "model"
def number(): return 3
def pair_of_one(): return (lambda x, t: x, None)
def triple(): return (lambda x, t: x, None, None)
def needs(path): return lambda x, t: x
def raises(): raise KeyError("weights")
def leaves(): sys.exit(0)
def odd(): raise type("Odd", (BaseException,), {})("odd")
def surrogate(): raise RuntimeError("half \\ud800")
def long_text(): raise RuntimeError("word " * 100000)
def wrong_shape(): return lambda x, t: x[:, :1, :1]
def wrong_rank(): return lambda x, t: x.flatten()
def integers(): return lambda x, t: x.long()
def booleans(): return lambda x, t: x > 0
def complex_numbers(): return lambda x, t: x + 1j
def on_meta(): return lambda x, t: x.to("meta")
def lists(): return lambda x, t: x.tolist()
def returns_none(): return lambda x, t: None
def not_a_number(): return lambda x, t: x * float("nan")
def infinite(): return lambda x, t: x * float("inf")
def one_argument(): return lambda x: x
def keywords_only(): return lambda *, x, t: x
def model_raises(): return lambda x, t: x.no_such_method()
def model_leaves(): return lambda x, t: sys.exit(3)
def model_changes_input():
    return lambda x, t: x.mul_(0)
def changes_default_dtype():
    torch.set_default_dtype(torch.float16)
    return lambda x, t: 0 * x
def changes_folder():
    os.chdir("/")
    return lambda x, t: 0 * x
def closes_output():
    sys.stdout.close()
    return lambda x, t: 0 * x
def removes_gradients():
    torch.set_grad_enabled(False)
    return lambda x, t: 0 * x
def generator():
    yield lambda x, t: x
class Unbuilt(torch.nn.Module):
    pass
def unbuilt(): return Unbuilt()
def half_precision(): return torch.nn.Linear(8, 8).half()
def needs_memory(): return lambda x, t: torch.empty(1 << 50) + x
variable = 3
"""

ADAPTER = """
import torch
from ddpm_ref.conformance import Implementation, Setting
class Mine(Implementation):
    name = "mine"
    def settings(self): return (Setting("linear", 13),)
class Other(Mine):
    name = "other"
"""


def prepare(folder: Path) -> None:
    """What every fault finds in its folder."""
    import numpy as np
    import torch
    from PIL import Image

    from bench.__main__ import main

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8), dtype=np.uint8)
    (folder / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{number:02d}.png")
    np.save(folder / "images.npy", images)
    (folder / "model.py").write_text(MODELS)
    (folder / "adapter.py").write_text(ADAPTER)
    (folder / "schedule.json").write_text(json.dumps({"beta": [0.01 * k for k in range(1, 21)]}))
    (folder / "my.toml").write_text('network = "article"\nT = 5\nsteps = 1\nbatch_size = 6\n')
    (folder / "text.txt").write_text("text\n")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "empty").write_bytes(b"")
    assert main([*TRAIN.split(), "--out", str(folder / "run")]) == 0
    records = str(folder / "records")
    assert main([*VERIFY.split(), "--out", records]) == 0
    assert main(f"capacity --data spiral:4 --rank 1 --out {records}".split()) == 0
    assert main(["loss", str(folder / "run/checkpoint.pt"), "--evaluations", "8", "--out", records]) == 0  # fmt: skip


def faults() -> list[Fault]:
    """All of them, in groups."""
    return list(
        itertools.chain(
            _options(), _toml(), _inputs(), _outputs(), _environments(), _limits(), _schedules(),
            _records(), _models(), _adapters(), _arrays(), _names(), _processes(),
        )
    )  # fmt: skip


# ---------------------------------------------------------------- options

CHECKPOINT = "run/checkpoint.pt"
WHOLE: Mapping[str, tuple[str, ...]] = {
    TRAIN: ("--steps", "--seed", "--checkpoint-every", "--sampler-steps"),
    f"elbo {CHECKPOINT} --evaluations 64": ("--seed", "--batch-size", "--examples", "--evaluations"),
    f"elbo {CHECKPOINT} --full --examples 2": ("--draws",),
    f"elbo --model model.py:good {MODEL}": ("--T", "--first-step"),
    f"loss {CHECKPOINT} --evaluations 16": ("--seed", "--batch-size", "--examples", "--evaluations"),
    f"estimator {CHECKPOINT} --evaluations 64 --repetitions 2 --reference-draws 1 --examples 2": ("--evaluations", "--repetitions", "--reference-draws"),
    "capacity --data spiral:4": ("--rank",),
    "optimal-loss --data spiral:4 --examples 4 --subset 8": ("--examples", "--subset", "--seed"),
    "schedule linear": ("--T", "--steps"),
    "weights": ("--T", "--t"),
    VERIFY: ("--limit",),
    "noise-test --count 1e6": ("--seed",),
    "throughput --only contest": ("--threads", "--rounds"),
    "gpu-visit": ("--rounds", "--study-steps"),
    "bound --grid": ("--samples",),
    "releases nowhere": ("--rounds", "--turns"),
}  # fmt: skip
REAL: Mapping[str, tuple[str, ...]] = {
    "noise-test": ("--count",),
    "throughput --only suite": ("--seconds", "--scaling"),
    f"elbo {CHECKPOINT} --evaluations 64": ("--clip",),
    "run --preset tiny --only verify": ("--limit",),
}
_NOT_WHOLE = ("-1", "1.5", "nan", "inf", "", "-0", "0x10", "1e400", HUGE, f"-{HUGE}", DIGITS)
_NOT_REAL = ("nan", "-1", "", "abc", "1e400", "-inf")
_MAY_BE_RIGHT = ("-0", HUGE, DIGITS, "1e400", "-1")


def _options() -> Iterator[Fault]:
    for command, options in WHOLE.items():
        for option, value in itertools.product(options, _NOT_WHOLE):
            status = EITHER if value in _MAY_BE_RIGHT else REFUSED
            status = (*status, 1) if command == "gpu-visit" else status  # without a GPU
            name = f"{command.split()[0]} {option} {value[:12]!r}{'…' * (len(value) > 12)}"
            yield Fault("options", name, (*command.split(), option, value), status)
    for command, options in REAL.items():
        for option, value in itertools.product(options, _NOT_REAL):
            status = (0, 1, 2) if option == "--clip" else REFUSED
            yield Fault("options", f"{command.split()[0]} {option} {value!r}", (*command.split(), option, value), status)  # fmt: skip
    for shape in (
        "axb",
        "0x1x2x2",
        "-1x1x2x2",
        "1x",
        "",
        "1.5x1x2x2",
        f"{HUGE}x1x1x1",
        "9999999x9999999",
    ):
        yield Fault("options", f"throughput --shapes {shape!r:.20}", ("throughput", "--only", "contest", "--rounds", "2", "--shapes", shape))  # fmt: skip
    for t in ("0", "1001", "a", "1,,2", "1,-1", ",", HUGE, "1.0"):
        yield Fault("options", f"weights --t {t!r:.20}", ("weights", "--t", t))
    for name in ("", "min_snr:", "min_snr:nan", "min_snr:-1", "p2:1", "p2:nan,1", "simple:3", "min_snr:1e400", "min_snr:0"):  # fmt: skip
        yield Fault("options", f"loss --weighting {name!r}", ("loss", CHECKPOINT, "--weighting", name))  # fmt: skip
    for shard in ("0/1", "2/1", "1/0", "a/b", "1", "-1/2", "1/2/3", "", f"1/{DIGITS}", "½/2"):
        yield Fault("options", f"run --shard {shard!r:.20}", ("run", "--preset", "tiny", "--only", "verify", "--shard", shard), REFUSED)  # fmt: skip
    for words in ("run --preset tiny --claims nothing", "run --features nothing", "run --executor nothing", "run --executor a.b:c", "run --executor os:getcwd", "run --device tpu", "run --provider nothing", "run --only nothing", "verify --against", "elbo", "loss", "loss a b c", "compare a", "report", "claims nowhere", "nothing", "--nothing", "train --sett a=1", "verify --law", "elbo --device cuda:99", "train --device mars", "estimator", "bound --price nowhere"):  # fmt: skip
        yield Fault("options", words, tuple(words.split()))
    for words in (f"{VERIFY} --law I9-kl --limit 5 --limit 6", "schedule linear --T 5 --T 6", "schedule linear --steps 5 --steps 6"):  # fmt: skip
        yield Fault("options", f"twice: {words}", tuple(words.split()), DONE)


# ---------------------------------------------------------------- configurations

_WRONG: tuple[Any, ...] = ("text", "", -1, 1.5, "nan", "inf", True, [], [1], {"a": 1}, 10**30, "1979-05-27")  # fmt: skip


def _toml() -> Iterator[Fault]:
    from dataclasses import fields

    from ddpm_ref.config import TrainConfig
    from ddpm_ref.toml import to_toml

    for entry in fields(TrainConfig):
        for value in _WRONG:
            bare = value in ("nan", "inf", "1979-05-27")
            text = f"{entry.name} = {value}\n" if bare else to_toml({entry.name: value})
            if not text.strip():
                continue
            yield Fault("toml", f"{entry.name} = {value!r}", (*TRAIN.split(), "--config", "odd.toml", "--out", "new"), (0, 1, 2), _writing("odd.toml", text))  # fmt: skip
    for name, text in {
        "not TOML": "a b c",
        "a key twice": "T = 1\nT = 2\n",
        "a table twice": "[network_options]\n[network_options]\n",
        "half a surrogate pair": 'data = "\\ud800"\n',
        "a NUL in a path": 'data = "folder:a\\u0000b"\n',
        "a NUL in an array's path": 'data = "array:a\\u0000b"\n',
        "a NUL in a network": 'network = "a\\u0000.py:f"\n',
        "a thousand tables deep": "[a" + ".a" * 2000 + "]\n",
        "nested lists": "ema_half_lives = " + "[" * 3000 + "]" * 3000 + "\n",
        "a byte-order mark": "\ufeffT = 5\n",
        "an unknown key": "colour = 3\n",
        "an unknown option": "[network_options]\ncolour = 3\n",
        "an option of the wrong type": '[network_options]\nhidden = "three"\n',
        "an option that is huge": f"[network_options]\nhidden = {10**15}\n",
        "an option that is negative": "[network_options]\nhidden = -3\n",
        "a batch that no memory holds": f"batch_size = {10**12}\n",
        "half-lives of zero": "ema_half_lives = [0.0]\n",
        "half-lives of nan": "ema_half_lives = [nan]\n",
        "a rate of nan": "learning_rate = nan\n",
        "more steps of warm-up than steps": f"warmup_steps = {10**18}\n",
        "decay before warm-up": "warmup_steps = 10\ndecay_steps = 5\n",
        "levels of one": "levels = 1\n",
    }.items():
        yield Fault("toml", name, ("train", "--config", "odd.toml", "--steps", "1", "--out", "new"), (0, 1, 2), _writing("odd.toml", text))  # fmt: skip
    for name, content in {"Latin-1": b'data = "\xe9"\n', "UTF-16": "T = 5\n".encode("utf-16"), "bytes": bytes(range(256))}.items():  # fmt: skip
        yield Fault("toml", f"a file in {name}", ("train", "--config", "odd.toml", "--out", "new"), REFUSED, _writing("odd.toml", content))  # fmt: skip
    for entry in ("T", "T=", "=5", "T=5=6", "T=nan", "a.b.c=1", "network_options=3", "[T]", "T=5\nseed=6", "T='5'", "", "data.x=1"):  # fmt: skip
        yield Fault("toml", f"--set {entry!r}", ("train", "--set", entry, "--network", "article", "--steps", "1", "--sampler-steps", "1", "--out", "new"), EITHER)  # fmt: skip


def _writing(name: str, content: str | bytes) -> Callable[[], None]:
    data = content.encode() if isinstance(content, str) else content

    def setup() -> None:
        Path(name).write_bytes(data)

    return setup


# ---------------------------------------------------------------- files that are read


def _fifo() -> None:
    os.mkfifo("odd")


def _loop() -> None:
    os.symlink("odd", "odd")


def _dangling() -> None:
    os.symlink("nowhere", "odd")


def _folder() -> None:
    os.mkdir("odd")


_ODD_FILES: Mapping[str, Callable[[], None]] = {
    "missing": nothing,
    "a folder": _folder,
    "a FIFO": _fifo,
    "a link to itself": _loop,
    "a dangling link": _dangling,
    "empty": _writing("odd", b""),
    "text": _writing("odd", "text\n"),
    "binary": _writing("odd", bytes(range(256)) * 9),
    "deep JSON": _writing("odd", "[" * 100_000),
    "an object of nothing": _writing("odd", "{}"),
}
_READERS = {
    "elbo {} --data digits": "",
    "loss {} --data digits": "",
    "estimator {} --data digits": "",
    "bound --price {} --data digits": "",
    "schedule {}": ".json",
    "report {} --out new": ".json",
    "compare {} records": ".json",
    "claims {}": ".json",
    "verify --against {}:Mine": ".py",
    "elbo --model {}:make --data digits": ".py",
    "train --network article --steps 1 --sampler-steps 1 --config {} --out new": ".toml",
    f"elbo {CHECKPOINT} --images {{}}": ".npy",
    "elbo --model hf:{} --data digits": "",
    "capacity --data folder:{} --rank 1": "",
    "capacity --data array:{} --rank 1": ".npz",
    "capacity --data mnist --data-dir {} --rank 1": "",
    "capacity --data cifar10 --data-dir {} --rank 1": "",
}


def _inputs() -> Iterator[Fault]:
    for words, ending in _READERS.items():
        for kind, make in _ODD_FILES.items():
            status = EITHER if kind in ("empty", "text", "an object of nothing") and ending == ".toml" else REFUSED  # fmt: skip
            status = (0, 1, 2) if kind == "a folder" and words.startswith(("report", "claims")) else status  # fmt: skip
            given = tuple(word.format(f"odd{ending}") for word in words.split())
            yield Fault("files", f"{words} {kind}", given, status, _renamed(make, f"odd{ending}"))
        for kind, path in {
            "/dev/null": "/dev/null",
            "an empty name": "",
            "a name of 300 letters": "a" * 300 + ending,
            "a path of 9000 letters": "a/" * 4500 + "b" + ending,
            "a file as a folder": f"text.txt/x{ending}",
            "another's home": f"~nobody-has-this-name/x{ending}",
            "not UTF-8": f"\udcff{ending}",
            "a newline": f"a\nb{ending}",
        }.items():
            yield Fault("files", f"{words} {kind}", tuple(word.format(path) for word in words.split()))  # fmt: skip


def _renamed(make: Callable[[], None], name: str) -> Callable[[], None]:
    def setup() -> None:
        make()
        if name != "odd" and os.path.lexists("odd"):
            os.rename("odd", name)

    return setup


# ---------------------------------------------------------------- files that are written


def _out_is_link() -> None:
    os.mkdir("target")
    os.symlink("target", "odd")


_WRITERS = {
    f"{TRAIN} --out {{}}": "",
    f"{VERIFY} --out {{}}": "",
    f"{VERIFY} --json {{}}": ".json",
    "schedule schedule.json --json {}": ".json",
    "schedule schedule.json --out {}": ".png",
    "capacity --data spiral:4 --rank 1 --picture {}": ".png",
    "capacity --data spiral:4 --rank 1 --out {}": "",
    "report records --out {}": "",
    "report --gallery {}": "",
    "compare records records --html {}": ".html",
    "compare records records --json {}": ".json",
    "claims records --json {}": ".json",
    "verify --init {}": ".py",
    f"elbo {CHECKPOINT} --evaluations 64 --json {{}}": ".json",
    f"loss {CHECKPOINT} --evaluations 16 --out {{}}": "",
    "run --preset tiny --only study --out {}": "",
}


def _outputs() -> Iterator[Fault]:
    for words, ending in _WRITERS.items():
        folder = ending == ""
        for kind, make in {
            "is a folder": _folder,
            "is a FIFO": _fifo,
            "is a link to itself": _loop,
            "is a dangling link": _dangling,
            "is a link to a folder": _out_is_link,
            "is a file": _writing("odd", "kept"),
        }.items():
            if words.startswith("run") and kind in ("is a folder", "is a link to a folder"):
                continue  # minutes of work, and right
            given = tuple(word.format(f"odd{ending}") for word in words.split())
            fine = ("is a folder", "is a link to a folder") if folder else ("is a file", "is a dangling link")  # fmt: skip
            status = EITHER if kind in (*fine, "is a dangling link") else REFUSED
            if kind == "is a link to itself" and not folder:
                status = EITHER  # the link is replaced by the file
            yield Fault("outputs", f"{words} {kind}", given, status, _renamed(make, f"odd{ending}"), changes=not folder)  # fmt: skip
        for kind, path in {
            "/dev/full": "/dev/full",
            "an empty name": "",
            "a name of 300 letters": "a" * 300 + ending,
            "below a file": f"text.txt/x{ending}",
            "/proc": f"/proc/odd{ending}",
            "another's home": f"~nobody-has-this-name/x{ending}",
            "of an ending that is none": "odd.nothing",
        }.items():
            if words.startswith("run") and kind.startswith("of an"):
                continue
            status = EITHER if kind in ("of an ending that is none", "another's home", "an empty name") else REFUSED  # fmt: skip
            yield Fault("outputs", f"{words} {kind}", tuple(word.format(path) for word in words.split()), status)  # fmt: skip
        if not words.startswith("run"):
            for kind, path in {"a newline": f"a\nb{ending}", "not UTF-8": f"\udcff{ending}", "a tilde": f"~x{ending}", "combining letters": f"e\u0301\u00e9{ending}", "a dash": f"./-x{ending}"}.items():  # fmt: skip
                yield Fault("outputs", f"{words} {kind}", tuple(word.format(path) for word in words.split()), EITHER)  # fmt: skip


# ---------------------------------------------------------------- environment


def _with(**values: str | None) -> Callable[[], None]:
    def setup() -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return setup


def _gone() -> None:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")


def _clock_backwards() -> None:
    now, calls = time.time, itertools.count()
    time.time = lambda: now() - 3600 * next(calls)  # type: ignore[assignment]


def _old_clock() -> None:
    time.time = lambda: -1e9  # type: ignore[assignment]


def _environments() -> Iterator[Fault]:
    some = (VERIFY, "schedule linear --out a.png", TRAIN, "report records --out new", "weights")
    cases: Mapping[str, Callable[[], None]] = {
        "no HOME": _with(HOME=None),
        "HOME is nowhere": _with(HOME="/nowhere"),
        "HOME is a file": _with(HOME="text.txt"),
        "an empty HOME": _with(HOME=""),
        "the cache is a file": _with(XDG_CACHE_HOME="text.txt"),
        "a relative cache": _with(XDG_CACHE_HOME="cache"),
        "TMPDIR is nowhere": _with(TMPDIR="/nowhere"),
        "TMPDIR is a file": _with(TMPDIR="text.txt"),
        "locale C": _with(LC_ALL="C", LANG="C", PYTHONUTF8="0"),
        "a locale that is none": _with(LC_ALL="xx_YY"),
        "one column": _with(COLUMNS="1"),
        "columns of text": _with(COLUMNS="abc"),
        "minus one column": _with(COLUMNS="-1"),
        "a dumb terminal": _with(TERM="dumb"),
        "no colour": _with(NO_COLOR="1"),
        "a backend that is none": _with(MPLBACKEND="nothing"),
        "a backend that needs a screen": _with(MPLBACKEND="TkAgg", DISPLAY=""),
        "matplotlib's folder is a file": _with(MPLCONFIGDIR="text.txt"),
        "threads of text": _with(OMP_NUM_THREADS="abc"),
        "no visible GPU": _with(CUDA_VISIBLE_DEVICES="99"),
        "a time zone that is none": _with(TZ="Nowhere/Nothing"),
        "an empty PATH": _with(PATH=""),
        "a clock that runs backwards": _clock_backwards,
        "a clock before 1970": _old_clock,
        "umask 777": lambda: os.umask(0o777) and None,
        "umask 077": lambda: os.umask(0o077) and None,
        "a working directory that is gone": _gone,
    }
    for (name, make), words in itertools.product(cases.items(), some):
        gone = name.startswith(("a working", "umask 777", "TMPDIR"))
        yield Fault("environment", f"{name}: {words.split()[0]}", (*words.split(), *(["--out", "new"] if words == TRAIN else [])), EITHER if gone else DONE, make)  # fmt: skip
    for name, value in itertools.product(("WORLD_SIZE", "RANK", "LOCAL_RANK"), ("abc", "-1", "", "1.5", HUGE)):  # fmt: skip
        yield Fault("environment", f"{name}={value[:9]}", (*TRAIN.split(), "--out", "new"), EITHER, _with(**{name: value}))  # fmt: skip


# ---------------------------------------------------------------- limits of the system


def _limited(which: int, value: int) -> Callable[[], None]:
    def setup() -> None:
        resource.setrlimit(which, (value, value))

    return setup


def _limits() -> Iterator[Fault]:
    some = (f"{VERIFY} --json a.json", "schedule linear --out a.png", f"{TRAIN} --out new", "report records --out new", f"elbo {CHECKPOINT} --evaluations 64 --json a.json")  # fmt: skip
    for words in some:
        for files in (10, 14, 20):
            yield Fault("limits", f"{files} open files: {words.split()[0]}", tuple(words.split()), EITHER, _limited(resource.RLIMIT_NOFILE, files))  # fmt: skip
        for size in (2000, 5000):
            yield Fault("limits", f"files of {size} bytes: {words.split()[0]}", tuple(words.split()), EITHER, _file_size(size))  # fmt: skip


def _file_size(size: int) -> Callable[[], None]:
    def setup() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does at its start
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return setup


# ---------------------------------------------------------------- schedules


def _schedules() -> Iterator[Fault]:
    tables: Mapping[str, Any] = {
        "nested deeply": "[" * 100_000,
        "not an object": "[1]",
        "a number": "3",
        "an integer of 400 digits": '{"beta": [1' + "0" * 400 + "]}",
        "an integer of 5000 digits": '{"beta": [1' + "0" * 5000 + "]}",
        "1e999": '{"beta": [1e999]}',
        "not a number": '{"beta": [NaN, 0.1]}',
        "empty": '{"beta": []}',
        "text in a table": '{"beta": ["a"]}',
        "numbers as text": '{"beta": ["0.1", "0.2"]}',
        "truths": '{"beta": [true, false]}',
        "lists in a table": '{"beta": [[0.1]]}',
        "an object as a table": '{"beta": {"a": 1}}',
        "beta of two": '{"beta": [2.0]}',
        "beta below 0": '{"beta": [-0.1, 0.1]}',
        "sigmas of 0": '{"sigmas": [0.0, 0.0]}',
        "negative sigmas": '{"sigmas": [-1.0, 1.0]}',
        "SNR that rises": '{"snr": [1, 2, 3]}',
        "negative SNR": '{"snr": [-1, -2]}',
        "alpha_bar above 1": '{"alpha_bar": [1.5, 0.5]}',
        "tables of two lengths": '{"beta": [0.1, 0.2], "alpha_bar": [0.9]}',
        "an unknown prediction": '{"beta": [0.1], "prediction_type": "colour"}',
        "a prediction that is a list": '{"beta": [0.1], "prediction_type": ["epsilon"]}',
        "a spacing that is none": '{"beta": [0.1], "timestep_spacing": "colour"}',
        "a spacing that is a number": '{"beta": [0.1], "timestep_spacing": 3}',
        "an offset of text": '{"beta": [0.1], "steps_offset": "x"}',
        "an offset of a list": '{"beta": [0.1], "steps_offset": [1]}',
        "an infinite offset": '{"beta": [0.1], "steps_offset": 1e999}',
        "an offset of a million": '{"beta": [0.1], "steps_offset": 1000000}',
        "a class that is a number": '{"_class_name": 3}',
        "a class alone": '{"_class_name": "DDPMScheduler"}',
    }
    config: Mapping[str, tuple[Any, ...]] = {
        "num_train_timesteps": ("x", -5, 0, 1.5, [1], True, 10**12, "1e999", 10**400),
        "beta_start": ("x", -1, [1], None, "1e999", 0, True),
        "beta_end": ("x", 2, {}, "NaN"),
        "beta_schedule": ("colour", 3, ["linear"], {}, ""),
        "trained_betas": ("abc", 3, [], ["a"], {"a": 1}, [0.5, None], True),
        "rescale_betas_zero_snr": ("false", 3, [1]),
    }
    for key, values in config.items():
        for value in values:
            entries = {"_class_name": "DDPMScheduler", "num_train_timesteps": 20, "beta_schedule": "linear", key: value}  # fmt: skip
            tables = {**tables, f"DDPM {key} = {str(value)[:20]}": json.dumps(entries).replace('"1e999"', "1e999").replace('"NaN"', "NaN")}  # fmt: skip
    for key, values in {"shift": ("x", -1, 0, [1], "1e999"), "num_train_timesteps": ("x", 0, -1)}.items():  # fmt: skip
        for value in values:
            entries = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 20, key: value}  # fmt: skip
            tables = {**tables, f"flow {key} = {value}": json.dumps(entries).replace('"1e999"', "1e999")}  # fmt: skip
    for key, values in {"sigma_min": ("x", -1, 0, None), "sigma_max": (0, -1, "1e999", [1]), "rho": (0, "x", -7), "sigma_schedule": (3, "colour", [])}.items():  # fmt: skip
        for value in values:
            entries = {"_class_name": "EDMEulerScheduler", "num_train_timesteps": 20, key: value}
            tables = {**tables, f"EDM {key} = {value}": json.dumps(entries).replace('"1e999"', "1e999")}  # fmt: skip
    for name, text in tables.items():
        yield Fault("schedules", name, ("schedule", "odd.json", "--json", "found.json"), (0, 1, 2), _writing("odd.json", text))  # fmt: skip


# ---------------------------------------------------------------- records that are whole and say nonsense


def _rewritten(kind: str, change: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    def setup() -> None:
        import dataclasses

        from bench.record import load, save

        for path in list(Path("records").glob(f"*{kind}*.json")):
            record = load(path)
            content = json.loads(json.dumps(dataclasses.asdict(record)))
            change(content)
            os.unlink(path)
            save(dataclasses.replace(record, **{**content, "seeds": tuple(content["seeds"])}), "records")  # fmt: skip

    return setup


def _records() -> Iterator[Fault]:
    changes: Mapping[str, Callable[[dict[str, Any]], None]] = {
        "no results": lambda c: c.update(results={}),
        "results of null": lambda c: c.update(results=dict.fromkeys(c["results"])),
        "results of text": lambda c: c.update(results=dict.fromkeys(c["results"], "x")),
        "results of lists": lambda c: c.update(results={key: [] for key in c["results"]}),
        "results of numbers": lambda c: c.update(results=dict.fromkeys(c["results"], 1e300)),
        "no protocol": lambda c: c.update(protocol={}),
        "no environment": lambda c: c.update(environment={}),
        "an environment of null": lambda c: c.update(environment=dict.fromkeys(c["environment"])),
        "a kind that is none": lambda c: c.update(kind="colour"),
        "a kind with a slash": lambda c: c.update(kind="a/../../b"),
        "a kind that is empty": lambda c: c.update(kind=""),
        "an odd date": lambda c: c.update(created="yesterday"),
        "samples of text": lambda c: c.update(samples={"a": "x"}),
        "a series of nothing": lambda c: c.update(samples={"a": {"values": [], "unit": "s", "better": "lower"}}),
        "a series of text": lambda c: c.update(samples={"a": {"values": ["x"], "unit": 3, "better": "up"}}),
        "markup in names": lambda c: c.update(data={"name": "<script>alert(1)</script>", "sha256": "$\\frac{"}),
        "data of numbers": lambda c: c.update(data={"name": 3}),
        "huge seeds": lambda c: c.update(seeds=[2**62, -1]),
    }  # fmt: skip
    for kind in ("verify", "capacity", "loss"):
        for name, change in changes.items():
            if name == "a kind with a slash":
                continue
            for command in ("report records --out new", "compare records records --json new.json"):
                yield Fault("records", f"{kind}, {name}: {command.split()[0]}", tuple(command.split()), (0, 1, 2), _rewritten(kind, change), changes=True)  # fmt: skip
        yield Fault("records", f"{kind}, no results: claims", ("claims", "records"), (0, 1, 2), _rewritten(kind, changes["no results"]), changes=True)  # fmt: skip


# ---------------------------------------------------------------- other people's code


def _models() -> Iterator[Fault]:
    good = {"good", "half_precision", "model_changes_input", "changes_default_dtype", "changes_folder", "closes_output", "removes_gradients"}  # fmt: skip
    names = [line[4:].partition("(")[0] for line in MODELS.splitlines() if line.startswith("def ")]
    for name in names:
        status = (0, 1, 2) if name in good | {"not_a_number", "infinite", "needs_memory"} else REFUSED  # fmt: skip
        for command in ("elbo", "loss"):
            words = [command, "--model", f"model.py:{name}", *MODEL.split(), "--json", "found.json"]
            yield Fault("models", f"{command} {name}", tuple(words), status)
    for spec in ("model.py", "model.py:", "model.py:nothing", "model.py:variable", ":good", "model:good", "nowhere.py:good", "text.txt:good", "hf:", "hf:images", "hf:nowhere", "hf:text.txt"):  # fmt: skip
        yield Fault("models", f"--model {spec!r}", ("elbo", "--model", spec, *MODEL.split()))


def _adapters() -> Iterator[Fault]:
    for spec in ("adapter.py", "adapter.py:", "adapter.py:Nothing", "adapter.py:Implementation", "nowhere.py:Mine", "text.txt", "", "DiT:nowhere", "DiT:images", "DiT:", "DiT", "improved-diffusion:text.txt"):  # fmt: skip
        yield Fault("adapters", f"--against {spec!r}", ("verify", "--law", "I9-kl", "--against", spec))  # fmt: skip
    for text in ("import nothing_like_this", "1/0", "import sys; sys.exit()", "raise KeyboardInterrupt", "def f(:", "\0", "\udcff", "raise type('Odd', (BaseException,), {})", "import os; os.chdir('/')\n" + ADAPTER):  # fmt: skip
        yield Fault("adapters", f"a file of {text[:30]!r}", ("verify", "--law", "I9-kl", "--against", "odd.py:Mine", "--json", "found.json"), (0, 2, 130), _writing("odd.py", text.encode(errors="surrogateescape")))  # fmt: skip


# ---------------------------------------------------------------- arrays, images, names


def _arrays() -> Iterator[Fault]:
    import numpy as np

    cases: Mapping[str, Callable[[], Any]] = {
        "objects": lambda: np.array([{}, []], dtype=object),
        "text": lambda: np.array(["a", "b"]),
        "dates": lambda: np.zeros(3, "datetime64[s]"),
        "complex numbers": lambda: np.zeros((24, 8, 8), complex),
        "truths": lambda: np.zeros((24, 8, 8), bool),
        "records": lambda: np.zeros(24, [("a", "u1")]),
        "no dimension": lambda: np.array(3.0),
        "no image": lambda: np.zeros((0, 8, 8), np.uint8),
        "no pixel": lambda: np.zeros((24, 0, 8), np.uint8),
        "five dimensions": lambda: np.zeros((24, 2, 2, 2, 2), np.uint8),
        "two channels": lambda: np.zeros((24, 2, 8, 8), np.uint8),
        "not a number": lambda: np.full((24, 8, 8), np.nan),
        "beyond float32": lambda: np.full((24, 8, 8), 1e300),
        "negative zeros": lambda: np.full((24, 8, 8), -0.0),
        "all equal": lambda: np.zeros((24, 8, 8), np.uint8),
        "big-endian": lambda: np.zeros((24, 8, 8), ">f4"),
        "column-major": lambda: np.asfortranarray(np.zeros((24, 8, 8), np.uint8)),
        "float16": lambda: np.zeros((24, 8, 8), np.float16),
        "long double": lambda: np.zeros((24, 8, 8), np.longdouble),
        "one image": lambda: np.zeros((1, 8, 8), np.uint8),
        "one pixel each": lambda: np.arange(24, dtype=np.uint8).reshape(24, 1, 1),
    }
    for name, make in cases.items():
        for command in (f"elbo {CHECKPOINT} --evaluations 64 --images odd.npy", "capacity --data array:odd.npy --rank 1", f"{TRAIN} --images odd.npy --out new"):  # fmt: skip

            def setup(make: Callable[[], Any] = make) -> None:
                np.save("odd.npy", make(), allow_pickle=True)

            yield Fault("arrays", f"{command.split()[0]} {name}", tuple(command.split()), (0, 1, 2), setup)  # fmt: skip


def _copied(names: Mapping[str, str], into: str = "odd") -> Callable[[], None]:
    def setup() -> None:
        import shutil

        os.mkdir(into)
        for number, path in enumerate(sorted(Path("images").iterdir())):
            shutil.copy(path, Path(into, names.get(str(number), path.name)))

    return setup


def _names() -> Iterator[Fault]:
    cases: Mapping[str, Mapping[str, str]] = {
        "a newline": {"0": "a\nb.png"},
        "not UTF-8": {"0": "\udcff.png"},
        "both forms of an accent": {"0": "e\u0301.png", "1": "\u00e9.png"},
        "capitals": {"0": "A.PNG", "1": "a.Png"},
        "spaces and quotes": {"0": " '\".png"},
        "right to left": {"0": "\u202egnp.png"},
        "255 bytes": {"0": "a" * 251 + ".png"},
        "a tilde": {"0": "~.png"},
    }
    for name, change in cases.items():
        for command in ("capacity --data folder:odd --rank 1", f"elbo {CHECKPOINT} --evaluations 64 --images odd"):  # fmt: skip
            yield Fault("names", f"{command.split()[0]}: {name}", tuple(command.split()), DONE, _copied(change))  # fmt: skip
    for name in ("a\nb", "\udcff", "e\u0301\u00e9", "~", " ", "-x", "$HOME", "a" * 255, ".", "a.png"):  # fmt: skip
        if name != ".":
            yield Fault("names", f"a folder called {name[:9]!r}", ("capacity", "--data", f"folder:./{name}", "--rank", "1", "--json", "found.json"), DONE, _copied({}, f"./{name}"))  # fmt: skip


# ---------------------------------------------------------------- signals and other processes


def _signal_after(number: int, seconds: float) -> Callable[[], None]:
    def setup() -> None:
        threading.Timer(seconds, os.kill, (os.getpid(), number)).start()

    return setup


def _reader_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)


def _closed(*numbers: int) -> Callable[[], None]:
    def setup() -> None:
        for number in numbers:
            os.close(number)

    return setup


def _locked() -> None:
    import fcntl

    if os.fork() == 0:
        descriptor = os.open("run", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        time.sleep(60)
        os._exit(0)
    time.sleep(0.3)


def _processes() -> Iterator[Fault]:
    long = "train --data digits --network article --steps 1000000 --out new --set T=5 --set batch_size=6"  # fmt: skip
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, -1)):
        yield Fault("processes", f"{signal.Signals(number).name} while training", tuple(long.split()), (status, 129), _signal_after(number, 4.0))  # fmt: skip
    for words in (VERIFY, "weights", "schedule linear --json -", "report records --out new"):
        yield Fault("processes", f"no reader: {words}", tuple(words.split()), (141,), _reader_gone)
        yield Fault("processes", f"no standard input: {words}", tuple(words.split()), DONE, _closed(0))  # fmt: skip
    yield Fault("processes", "another run in the folder", ("train", "--steps", "3", "--resume", "--out", "run"), REFUSED, _locked)  # fmt: skip
    yield Fault("processes", "SIGCHLD ignored", tuple(f"{VERIFY} --json a.json".split()), DONE, lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN) and None)  # fmt: skip
