"""Laws that any implementation of a diffusion objective must obey, and adapters that put one under them."""

from ddpm_ref.conformance.implementation import (
    STANDARD_SETTINGS,
    Bound,
    Convention,
    Implementation,
    Model,
    NotOffered,
    Posterior,
    Setting,
)

__all__ = [
    "STANDARD_SETTINGS",
    "Bound",
    "Convention",
    "Implementation",
    "Model",
    "NotOffered",
    "Posterior",
    "Setting",
]
