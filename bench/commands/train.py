"""`ddpm-bench train`: the trainer alone, on one process or on several under torchrun."""

import argparse
import dataclasses
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.commands.subject import add_download, add_images, data_from
from bench.terminal.usage import UsageError, alone_in, at_least, readable_file, writable_directory

if TYPE_CHECKING:
    from bench.job.training_run import Plan
    from ddpm_ref.config import TrainConfig
    from ddpm_ref.trainer import Step

HELP = """train one model; with torchrun on several processes

  ddpm-bench train --data digits --out runs/digits
  ddpm-bench train --data digits --steps 20 --set T=10 --out runs/first
  ddpm-bench train --config my.toml --set network_options.base=32
  ddpm-bench train --out runs/digits --steps 4000 --resume
  torchrun --nproc-per-node 2 -m bench train --data digits --out runs/digits

writes OUT/config.toml, checkpoint.pt, log.csv, loss.png and samples.png"""

_DIRECT = {
    "data": "data set; folder:PATH for images of your own",
    "seed": "of weights, order, steps t and noise",
    "steps": "optimizer steps",
    "parameterization": "what the network predicts",
    "weighting": "how its error is weighted",
    "network": "unet, mlp, ddpm-cifar10, … or FILE.py:FACTORY, whose code is then run",
    "device": "cpu or cuda",
    "precision": "float32, bfloat16 or float64",
    "provider": "of the fused noise; the bits are the same",
}
_WHOLE = ("seed", "steps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("--config", metavar="FILE.toml", help="the run; options below override it")
    for name, what in _DIRECT.items():
        kind: Any = at_least(0) if name in _WHOLE else str
        parser.add_argument(f"--{name}", type=kind, help=what)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="entries",
        help="any other key of the configuration, in TOML, such as batch_size=32 or network_options.base=32",
    )
    add_images(parser)
    parser.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are")
    add_download(parser)
    parser.add_argument(
        "--out", default="runs/train", metavar="DIR", help="folder of the run (default: runs/train)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument(
        "--checkpoint-every",
        type=at_least(1),
        default=1000,
        metavar="N",
        help="default: 1000 steps",
    )
    parser.add_argument(
        "--sampler-steps", type=at_least(1), default=100, metavar="N", help="for samples.png"
    )


def run(arguments: argparse.Namespace) -> int:
    """0 done, 1 diverged; errors of use raise `UsageError` (exit status 2)."""
    from bench.job.together import is_chief, together
    from bench.job.training_run import Plan, for_data, run_training

    out = writable_directory(arguments.out)
    config = _config(arguments, out)
    with together(config.device) as device:
        config = dataclasses.replace(config, device=device)
        data = data_from(arguments, config.data)
        plan = Plan(
            for_data(config, data),
            out,
            arguments.resume,
            arguments.checkpoint_every,
            arguments.sampler_steps,
        )
        with alone_in(out) if is_chief() else nullcontext():
            last = run_training(plan, data)
        if is_chief():
            print(_outcome(plan, last))
    return int(last is not None and last.diverged)


def _outcome(plan: "Plan", last: "Step | None") -> str:
    if last is None:
        from ddpm_ref.checkpoint import saved_steps

        return f"the run in {plan.out} has its {saved_steps(plan.checkpoint)} steps already; --steps N with a larger N continues it"
    if last.diverged:
        return f"diverged at step {last.step}: loss {last.loss}, gradient norm {last.gradient_norm}"
    apart = f" (compiling took {last.compile_seconds:.1f} s)" if last.compile_seconds else ""
    done = f"{last.step} steps, loss {last.loss:.4f}{apart}; checkpoint, log and pictures are in {plan.out}"
    return f"{done}\nnext: ddpm-bench elbo {shlex.quote(str(plan.out))}"


def _config(arguments: argparse.Namespace, out: Path) -> "TrainConfig":
    """The file's configuration (or the defaults) with the choices of the command line on top."""
    from ddpm_ref.config import TrainConfig, parse_toml

    source = _config_file(arguments, out)
    try:
        entries = {} if source is None else parse_toml(source.read_text(encoding="utf-8"))
        return TrainConfig.from_entries(_merged(entries, _choices(arguments)))
    except (TypeError, ValueError, OSError) as error:
        where = "" if source is None else f"{source} with the options given: "
        raise UsageError(f"{where}{error}") from error


def _config_file(arguments: argparse.Namespace, out: Path) -> Path | None:
    """The file asked for; a resumed run brings its own."""
    if arguments.config is not None:
        return readable_file(arguments.config)
    own = out / "config.toml"
    return own if arguments.resume and own.is_file() else None


def _choices(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, as entries of a configuration."""
    from ddpm_ref.config import parse_toml

    choices: dict[str, Any] = {}
    for entry in arguments.entries:
        try:
            choices = _merged(choices, parse_toml(entry))
        except ValueError as error:
            raise UsageError(
                f"--set {entry}: {error}; write KEY=VALUE in TOML, text in quotes: --set 'schedule=\"cosine\"'"
            ) from error
    direct = {name: getattr(arguments, name) for name in _DIRECT}
    return choices | {name: value for name, value in direct.items() if value is not None}


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both tables; where both have a sub-table of one name, the sub-tables are merged."""
    merged = dict(first)
    for key, value in second.items():
        old = merged.get(key)
        merged[key] = (
            {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged
