"""The one error of a session."""


class SessionError(RuntimeError):
    """A network cannot be run as it was asked for.

    Attributes
    ----------
    reason : str
        What is in the way, in a sentence.
    mend : str
        What would help: a command where there is one, else an advice; may be empty.
    """

    def __init__(self, reason: str, mend: str = "") -> None:
        super().__init__(f"{reason}; {mend}" if mend else reason)
        self.reason = reason
        self.mend = mend

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # a server passes it between processes
        return type(self), (self.reason, self.mend)
