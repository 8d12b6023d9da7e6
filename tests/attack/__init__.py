"""`python -m tests.attack`: hundreds of faults of a user, a file, an environment or a machine against every command (`__main__` runs them, `faults` lists them)."""
