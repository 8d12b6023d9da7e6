"""`ddpm-bench train` behind its command line: one run in one folder, which can be left and resumed.

    OUT/config.toml       what was run; `--config OUT/config.toml` runs it again
    OUT/checkpoint.pt     the last saved state, replaced in one motion
    OUT/log.csv           one line per step: step, loss, learning rate, gradient norm, clipped
    OUT/loss.png          the run's own loss, raw and averaged
    OUT/samples.png       samples of the averaged model

The log is what the checkpoint knows: on `--resume` the lines after it are cut off, because those steps are taken again.
"""

import csv
import dataclasses
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.job.together import is_chief
from bench.terminal.files import FileNotWrittenError, replacing, write_picture, write_text
from bench.terminal.progress import meter
from bench.terminal.usage import UsageError, on_interrupt
from ddpm_ref.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, saved_steps
from ddpm_ref.config import TrainConfig
from ddpm_ref.sampler import sample
from ddpm_ref.team import Team
from ddpm_ref.trainer import Step, train

if TYPE_CHECKING:
    from bench.data import DataSet

COLUMNS = ("step", "loss", "learning_rate", "gradient_norm", "clipped")
_SAMPLES, _COLUMNS_OF_SAMPLES, _SHOWN_PIXELS = 64, 16, 64
_RGB_OR_GREY = (1, 3)


@dataclass(frozen=True)
class Plan:
    """One invocation.

    Attributes:
        config: the run.
        out: its folder.
        resume: continue from the checkpoint in `out`.
        checkpoint_every: steps between two saved states.
        sampler_steps: steps of the sampler for the picture.
    """

    config: TrainConfig
    out: Path
    resume: bool = False
    checkpoint_every: int = 1000
    sampler_steps: int = 100

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept."""
        return self.out / "checkpoint.pt"


def run_training(plan: Plan, data: "DataSet") -> Step | None:
    """Train, log, save, draw; the last step, or None where the run was complete already.

    Raises:
        UsageError: the folder holds another run, or the configuration does not fit the data.
    """
    try:
        found = _found(plan)
        steps = train(plan.config, data.train, resume=found)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    done = 0 if found is None else found.step
    if done > plan.config.steps:  # what was run stays what config.toml says
        return None
    with on_interrupt(lambda: _left_over(plan)):
        try:
            last = _follow(plan, steps, done) if is_chief() else _last(steps)
        except OSError as error:  # the log or a checkpoint: the folder is full, or gone
            raise UsageError(
                f"{FileNotWrittenError(plan.out, error)}. {_left_over(plan)}"
            ) from error
        if is_chief():
            _draw_loss(plan.out / "log.csv", plan.out / "loss.png")
        if last is not None and not last.diverged:
            _draw_samples(plan, last, clip=data.levels is not None)
    return last


def for_data(config: TrainConfig, data: "DataSet") -> TrainConfig:
    """The configuration with the data set's grey levels, where the hybrid loss needs them and nothing else was said."""
    if config.variance == "learned" and config.levels == 0 and data.levels is not None:
        return dataclasses.replace(config, levels=data.levels)
    return config


def _last(steps: Iterator[Step]) -> Step | None:
    final = deque(steps, maxlen=1)
    return final[0] if final else None


def _found(plan: Plan) -> Checkpoint | None:
    if not plan.resume:
        if plan.checkpoint.exists():
            raise UsageError(
                f"{str(plan.out)!r} already holds a run; continue it with --resume, or choose another --out"
            )
        return None
    try:
        # A network from a file is the run's own, named in its config.toml or by whoever called.
        return load_checkpoint(plan.checkpoint, device=plan.config.device, run_code=True)
    except FileNotFoundError as error:
        raise UsageError(
            f"--resume: there is no {str(plan.checkpoint)!r}; leave --resume out to start a new run"
        ) from error


def _follow(plan: Plan, steps: Iterator[Step], done: int) -> Step | None:
    """Go through the steps with a progress bar, a log and a checkpoint now and then."""
    write_text(plan.out / "config.toml", plan.config.to_toml())
    _trim_log(plan, done)
    last = None
    label = f"{plan.config.parameterization}/{plan.config.weighting} on {plan.config.data}"
    with (
        open(plan.out / "log.csv", "a", newline="", encoding="utf-8") as file,
        meter(total=plan.config.steps - done, label=label) as shown,
    ):
        log = csv.writer(file)
        for last in steps:
            log.writerow(
                [last.step, last.loss, last.learning_rate, last.gradient_norm, int(last.clipped)]
            )
            shown.advance(note=f"loss {last.loss:.4f}")
            if last.step % plan.checkpoint_every == 0:
                file.flush()
                save_checkpoint(plan.checkpoint, last.state)
    if last is not None:
        save_checkpoint(plan.checkpoint, last.state)
    return last


def _trim_log(plan: Plan, known: int) -> None:
    """Keep the lines of the log that the checkpoint knows."""
    path, kept = plan.out / "log.csv", [list(COLUMNS)]
    if plan.resume and path.exists():
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            kept += [row for row in csv.reader(file) if _is_known(row, known)]
    text = io.StringIO()
    csv.writer(text).writerows(kept)
    write_text(path, text.getvalue())


def _is_known(row: list[str], known: int) -> bool:
    """A whole line of a step that the checkpoint has seen: one that a full disk or a kill tore is cut off with those after it."""
    return len(row) == len(COLUMNS) and row[0].isdecimal() and int(row[0]) <= known


def _left_over(plan: Plan) -> str:
    if not plan.checkpoint.exists():
        return f"no checkpoint yet in {plan.out}: nothing can be resumed"
    done = saved_steps(plan.checkpoint)
    return f"{done} steps are saved in {plan.checkpoint}; go on with --resume --out {plan.out}"


def _draw_loss(log: Path, picture: Path) -> None:
    """The run's own loss over its steps: every step, and the mean of windows of a hundredth of the run."""
    from matplotlib.figure import Figure

    with open(log, newline="", encoding="utf-8") as file:
        values = torch.tensor([float(row["loss"]) for row in csv.DictReader(file)])
    window = max(1, len(values) // 100)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, len(values) + 1), values, color="0.75", linewidth=0.6, label="each step")
    means = values[: len(values) // window * window].view(-1, window).mean(1)
    middle = [window * (k + 0.5) for k in range(len(means))]
    axes.plot(middle, means, color="C0", label=f"mean of {window} steps")
    axes.set(xlabel="optimizer step", ylabel="loss of the run's own objective", yscale="log")
    axes.legend(frameon=False)
    write_picture(figure, picture, dpi=120)


def _draw_samples(plan: Plan, last: Step, *, clip: bool) -> None:
    """Samples of the averaged model as a sheet of pictures, each process its share; nothing for data that are not pictures."""
    from torch.nn.functional import interpolate
    from torchvision.utils import save_image

    shape, config, team = last.state.shape, plan.config, Team.present()
    if len(shape) != 3 or shape[0] not in _RGB_OR_GREY:
        return
    first, count = team.share(_SAMPLES)
    mine = sample(
        last.ema,
        (count, *shape),
        last.state.schedule,
        parameterization=config.parameterization,
        steps=min(plan.sampler_steps, config.T),
        clip=clip,
        seed=config.seed,
        first_index=first,
    )
    images = team.assemble(mine, _SAMPLES)
    if team.rank:
        return
    large = interpolate(images.float(), scale_factor=max(1, _SHOWN_PIXELS // shape[1]))
    with replacing(plan.out / "samples.png") as file:
        save_image(
            large,
            file,
            format="png",
            nrow=_COLUMNS_OF_SAMPLES,
            padding=1,
            normalize=True,
            value_range=(-1, 1),
        )
