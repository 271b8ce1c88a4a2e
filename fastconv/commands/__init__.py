"""The subcommands of ``fastconv``, a module each: its docstring is its help.

A module has `SUMMARY` (a line), `EXAMPLES`, `add_arguments(parser)` and `run(arguments)`, which
returns the exit code. It imports what is heavy inside `run`.
"""
