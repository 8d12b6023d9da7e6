"""Seeded defects, frozen before the laws first saw them."""

from tests.independent.defects import (
    crafty_chance,
    crafty_gradients,
    crafty_layout,
    crafty_manners,
    crafty_ranges,
    crafty_steps,
    last_crafty,
    last_ordinary,
    ordinary_bounds,
    ordinary_chains,
    ordinary_objectives,
    ordinary_schedules,
)
from tests.independent.defects.defect import Defect

FROZEN: dict[str, Defect] = {
    f"{place}/{defect.id}": defect
    for place, module in (
        ("schedules", ordinary_schedules),
        ("objectives", ordinary_objectives),
        ("bounds", ordinary_bounds),
        ("chains", ordinary_chains),
        ("steps", crafty_steps),
        ("layout", crafty_layout),
        ("gradients", crafty_gradients),
        ("manners", crafty_manners),
        ("ranges", crafty_ranges),
        ("chance", crafty_chance),
    )
    for defect in module.seeded.found
}
"""The first set by id."""

LAST: dict[str, Defect] = {
    f"last/{defect.id}": defect
    for module in (last_ordinary, last_crafty)
    for defect in module.seeded.found
}
"""The set kept back until no law changes any more."""

__all__ = ["FROZEN", "LAST", "Defect"]
