"""Tests of the bench; a package, so that one of the same name elsewhere does not hide `tests.samples`."""
