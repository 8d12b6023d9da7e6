"""A setting: which schedule, of how many steps, a law asks an implementation about."""

from dataclasses import dataclass
from itertools import pairwise
from numbers import Real


@dataclass(frozen=True)
class Setting:
    """Which schedule a law asks about.

    Attributes:
        name: `linear`, `cosine`, `sigmoid` with the default constants of the notation table (β from 1e-4 to 0.02;
            s = 0.008, β ≤ 0.999; start −3, end 3, τ 1, β ≤ 0.999), or any other word together with `beta` or `log_snr`.
        T: number of steps.
        zero_terminal_snr: rescaled after Lin et al. 2024, algorithm 1, so that ᾱ_T = 0.
        timesteps: respaced to these steps (1-based, increasing; a "leading" spacing does not visit T), or all of them.
        beta: β_1 … β_T of a schedule without a known name.
        log_snr: λ_1 … λ_T of a schedule without a known name.
        parameters: constants of a named schedule other than its default ones, (("tau", 0.5),).
    """

    name: str
    T: int
    zero_terminal_snr: bool = False
    timesteps: tuple[int, ...] | None = None
    beta: tuple[float, ...] | None = None
    log_snr: tuple[float, ...] | None = None
    parameters: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """A setting that contradicts itself would be charged to the code under test.

        Raises:
            TypeError: a field of another type.
            ValueError: T < 1, as many β or λ as there are not steps, both of them, steps outside 1 … T or not increasing.
        """
        if type(self.name) is not str or type(self.T) is not int:
            raise TypeError(f"Setting({self.name!r}, {self.T!r}): a str and an int are expected")
        if self.T < 1:
            raise ValueError(f"Setting({self.name!r}, {self.T}): T must be at least 1")
        for field, kind in (("beta", Real), ("log_snr", Real), ("timesteps", int)):
            value = getattr(self, field)
            tuple_of = isinstance(value, tuple) and all(isinstance(v, kind) for v in value)
            if value is not None and not tuple_of:
                raise TypeError(
                    f"{field} of Setting({self.name!r}, {self.T}) is a {type(value).__name__}: pass a tuple of numbers, tuple(x.tolist())"
                )
        self._check_lengths()

    def _check_lengths(self) -> None:
        if self.beta is not None and self.log_snr is not None:
            raise ValueError(
                f"Setting({self.name!r}, {self.T}) has beta and log_snr: pass one of them"
            )
        for field in ("beta", "log_snr"):
            value = getattr(self, field)
            if value is not None and len(value) != self.T:
                raise ValueError(
                    f"Setting({self.name!r}, {self.T}) has {len(value)} numbers of {field} for {self.T} steps: pass one for each"
                )
        steps = self.timesteps
        if steps is None:
            return
        if (
            not steps
            or steps[0] < 1
            or steps[-1] > self.T
            or any(a >= b for a, b in pairwise(steps))
        ):
            raise ValueError(
                f"timesteps {steps} of Setting({self.name!r}, {self.T}) must increase from at least 1 to at most {self.T}"
            )

    @property
    def steps(self) -> int:
        """Number of steps that are visited: T, or the length of `timesteps`."""
        return self.T if self.timesteps is None else len(self.timesteps)

    def __str__(self) -> str:
        zero = ", zero terminal SNR" if self.zero_terminal_snr else ""
        constants = "".join(f", {name} = {value:g}" for name, value in self.parameters)
        chosen = "" if self.timesteps is None else f", respaced to {self.steps} steps"
        return f"{self.name} T={self.T}{constants}{zero}{chosen}"


STANDARD_SETTINGS = (
    Setting("linear", 1000),
    Setting("cosine", 1000),
    Setting("sigmoid", 1000),
    Setting("linear", 2),
    Setting("cosine", 1),
    Setting("cosine", 13),
    Setting("linear", 1000, zero_terminal_snr=True),
    Setting("linear", 1000, timesteps=(1, 2, 5, 17, 101, 499, 997, 1000)),
)
"""What the laws ask about unless the adapter says otherwise."""
