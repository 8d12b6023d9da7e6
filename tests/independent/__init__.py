"""An implementation of the whole interface written from the papers alone, and defects seeded into it.

It shares no formula with `ddpm_ref`: what the laws say about it is said by somebody who did not write it. `right.Right` must pass every
law; every class of `defects/` is wrong in one way and must be rejected by name. `python -m tests.independent` counts.
"""
