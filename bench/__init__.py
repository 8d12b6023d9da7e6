"""The diffusion objective bench: measure, record, report.

Three programs with one schema between them. Commands (`bench.commands`) measure and write frozen
records (`bench.record`); the report (`bench.report`) is a pure function of records, so that every
sentence in it can be traced to a file with a date, a commit and a content hash.

`bench` needs `ddpm_ref`; nothing in `ddpm_ref` needs `bench`.
"""
