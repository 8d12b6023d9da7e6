"""The study: contrasts over paired seeds, the verdict in sentences, figures, and the section of the page."""

from bench.report.study.chapter import apart, rank, section

__all__ = ["apart", "rank", "section"]
