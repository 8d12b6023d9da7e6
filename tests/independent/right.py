"""The whole interface, right."""

from tests.independent.training import Training


class Right(Training):
    """An implementation of everything that `Implementation` names, from the papers."""

    name = "independent"
    other_lengths = True
    own_schedules = True
