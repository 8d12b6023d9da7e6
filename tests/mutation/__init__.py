"""Would the tests notice? Defects planted at random in the source, and the share of them that the tests find.

`operators` says which edits of a syntax tree count as a defect, `campaign` draws a seeded sample of them, `worker` runs the
tests on one in a forked process, `equivalent.toml` lists those that no test can find because they change nothing, each with its reason.

The seeded defects of `ddpm_ref.conformance.mutants` are another thing: each is a known mistake, and must be rejected by the law
that names it. Here nobody knows beforehand what will break.
"""
