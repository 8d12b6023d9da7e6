"""Which laws hold on what: the section of the page, and what the terminal prints."""

from bench.report.laws.chapter import section

__all__ = ["section"]
