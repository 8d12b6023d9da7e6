"""`python -m tests.fuzz.parsers NAME`: fuzz one parser by coverage with atheris, which is not needed for anything else.

    python -m tests.fuzz.parsers idx --seconds 600
    python -m tests.fuzz.parsers                        the names

Each parser is given bytes, and may return or say in its own error why not; anything else is a finding, and its input is kept in
`crash-*`. Beginnings are real files of the format, made here.
"""

import argparse
import io
import pickle
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

HELP = "fuzz one parser by coverage"


def _scratch(suffix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    return folder / f"data{suffix}"


def idx(data: bytes, place: Path) -> None:
    """An IDX file."""
    from bench.data.idx import read_idx
    from bench.terminal.usage import UsageError

    place.write_bytes(data)
    try:
        read_idx(place)
    except UsageError:
        return


def cifar(data: bytes, place: Path) -> None:
    """A CIFAR-10 pickle."""
    from bench.data.cifar import read_pickle
    from bench.terminal.usage import UsageError

    place.write_bytes(data)
    try:
        read_pickle(place)
    except UsageError:
        return


def picture(data: bytes, place: Path) -> None:
    """An image file."""
    from bench.data.picture import read_picture
    from bench.terminal.usage import UsageError

    place.write_bytes(data)
    try:
        read_picture(place, place.name)
    except UsageError:
        return


def record(data: bytes, place: Path) -> None:
    """A record."""
    from bench.record import RecordError, load

    place.write_bytes(data)
    try:
        load(place)
    except RecordError:
        return


def toml(data: bytes, place: Path) -> None:
    """A configuration."""
    from ddpm_ref.config import TrainConfig

    del place
    try:
        config = TrainConfig.from_toml(data.decode("utf-8", "replace"))
    except (ValueError, TypeError):
        return
    assert TrainConfig.from_toml(config.to_toml()) == config


def checkpoint(data: bytes, place: Path) -> None:
    """A checkpoint."""
    from ddpm_ref.checkpoint import load_checkpoint

    place.write_bytes(data)
    try:
        load_checkpoint(place, device="cpu")
    except ValueError:
        return


PARSERS: Mapping[str, Callable[[bytes, Path], None]] = {
    "idx": idx,
    "cifar": cifar,
    "picture": picture,
    "record": record,
    "toml": toml,
    "checkpoint": checkpoint,
}


def beginnings(name: str) -> list[bytes]:
    """Small files that the parser accepts."""
    from PIL import Image

    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    if name == "idx":
        import gzip

        plain = struct.pack(">BBBBIII", 0, 0, 8, 3, *array.shape) + array.tobytes()
        return [plain, gzip.compress(plain)]
    if name == "cifar":
        batch = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1]}
        return [pickle.dumps(batch, protocol) for protocol in (2, 4, 5)]
    if name == "picture":
        found = []
        for kind in ("PNG", "GIF", "BMP", "TIFF", "PPM"):
            buffer = io.BytesIO()
            Image.fromarray(array[0]).save(buffer, kind)
            found.append(buffer.getvalue())
        return found
    if name == "record":
        from bench.record import new_record, save

        with tempfile.TemporaryDirectory() as folder:
            return [save(new_record("bound", protocol={}), folder).read_bytes()]
    if name == "toml":
        from ddpm_ref.config import TrainConfig

        return [TrainConfig().to_toml().encode()]
    from ddpm_ref.checkpoint import save_checkpoint
    from ddpm_ref.config import TrainConfig
    from ddpm_ref.training_state import new_state

    config = TrainConfig(T=3, network_options={"base": 2, "multipliers": (1,), "attention": ()})
    place = _scratch(".pt")
    return [save_checkpoint(place, new_state(config, (1, 2, 2), "0" * 64)).read_bytes()]


def main() -> None:
    """Hand over to atheris, which ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.parsers", description=HELP)
    parser.add_argument("parser", choices=PARSERS)
    parser.add_argument("--seconds", type=int, default=60, help="(default: %(default)s)")
    arguments = parser.parse_args()
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("this needs atheris: python -m pip install atheris")
    with atheris.instrument_imports(include=["bench", "ddpm_ref"]):
        pass
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, content in enumerate(beginnings(arguments.parser)):
        (corpus / str(number)).write_bytes(content)
    place = _scratch(".png" if arguments.parser == "picture" else ".json")
    target = PARSERS[arguments.parser]
    options = [
        f"-max_total_time={arguments.seconds}",
        "-max_len=8192",
        "-rss_limit_mb=4096",
        "-timeout=20",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: target(data, place))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
