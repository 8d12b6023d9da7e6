"""A schedule as a picture: log-SNR over t, the density of log-SNR under uniform t, the weights relative to the bound's."""

from collections.abc import Mapping
from typing import Any

from bench.record import write_picture


def draw(found: Mapping[str, Any], path: str) -> None:
    """Three panels, as a file whose ending says its kind."""
    from matplotlib.figure import Figure

    curves = found["curves"]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(curves["t"], curves["log_snr"], color="#0068a8")
    left.set(xlabel="step t", ylabel="log SNR", title=found["name"])
    middle.plot(curves["log_snr"], curves["density"], color="#0068a8")
    middle.set(xlabel="log SNR", ylabel="density under uniform t")
    for name, values in curves["weights"].items():
        right.plot(curves["log_snr"], values, label=name)
    right.set(
        xlabel="log SNR", ylabel="weight / bound's, largest = 1", yscale="log", ylim=(1e-4, 2)
    )
    if curves["weights"]:
        right.legend(frameon=False, fontsize="small")
    write_picture(figure, path)
