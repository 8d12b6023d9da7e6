"""A second computation, in 50 digits, of what a law says is a bug."""
