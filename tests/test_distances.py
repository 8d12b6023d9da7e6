"""The table of distances: quality between two marks, and a feature map that cannot tell data from a Gaussian decides nothing."""

import pytest

from bench.record.study import Results, primary_measures
from bench.report.page.blocks import Table
from bench.report.study.distances import distance_tables

pytestmark = pytest.mark.any_torch


def results(**about: object) -> Results:
    row = {
        "name": "FD[map]",
        "samples": 500,
        "floor": [1.0, 3.0],
        "control": 10.0,
        "noise": 90.0,
        "may_be_primary": True,
        **about,
    }
    runs = [
        {
            "arm": "eps/simple",
            "seed": seed,
            "diverged_at": None,
            "final": {"distances": {"map": {"fd": fd, "fd_infinity": 0.5, "kid": 0.25}}},
        }
        for seed, fd in enumerate([5.0, 6.0, 7.0])
    ]
    return {
        "arms": [{"name": "eps/simple"}, {"name": "x0/simple"}],
        "runs": runs,
        "distance": row,
        "distances": {"map": row},
    }


def test_quality_lies_between_real_images_and_the_gaussian() -> None:
    (table,) = distance_tables(results())
    assert isinstance(table, Table)
    lines = {str(row[0]): [getattr(cell, "text", cell) for cell in row[1:]] for row in table.rows}
    # mean 6 with floor 2 and control 10: half way; Student's half width 2.4841 of FD is 0.3105 of the way
    assert lines["`eps/simple`"][1] == "0.50 [0.19, 0.81]"
    assert lines["`eps/simple`"][2:] == ["0.500", "0.250"]
    assert lines["`x0/simple`"] == ["–"] * 4
    assert [lines[name][1] for name in ("real images", "white noise")] == ["0", "11.0"]
    assert "may decide" in table.caption


def test_a_map_that_takes_the_gaussian_for_data_decides_nothing() -> None:
    blind = results(may_be_primary=False)
    assert "decides nothing" in distance_tables(blind)[0].caption  # type: ignore[union-attr]
    assert [entry.key for entry in primary_measures(blind)] == ["bits_per_dim"]
    assert [entry.key for entry in primary_measures(results())] == ["bits_per_dim", "fd"]


def test_a_record_without_a_control_has_no_table() -> None:
    old = results()
    assert distance_tables({**old, "distances": {}}) == []
