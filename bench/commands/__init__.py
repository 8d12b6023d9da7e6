"""The commands, one module each: `HELP`, `add_arguments(parser)` and `run(arguments) -> int`.

`bench.__main__` holds the list; it imports the chosen module alone. Importing a command module
costs next to nothing: torch and everything else that is slow is imported inside `run`.
"""
