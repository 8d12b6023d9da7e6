"""The quality of the noise, and its cost in instructions: records of kind `noise`."""
