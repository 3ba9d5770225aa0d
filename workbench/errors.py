"""The three ways a command can say no; each carries the exit code that the command line ends with."""


class NotebookError(Exception):
    """The notebook ran and failed. Its run directory keeps what it did until then."""

    exit_code = 1


class UsageError(ValueError):
    """What was passed cannot be used. The message says what was passed, what was expected and how to mend it."""

    exit_code = 2


class GateError(Exception):
    """A check refused: nothing that failed it has been kept."""

    exit_code = 3
