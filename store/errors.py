"""The one error type for what a user can mend; shown without a traceback."""


class PiarError(Exception):
    """Something the user can mend.

    Args:
        message: what is wrong, in one sentence.
        fix: what to do about it, in one sentence; printed on its own line.
        exit_code: 1 for failed work, 2 for wrong usage or configuration.
    """

    def __init__(self, message: str, fix: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message


class UsageError(PiarError):
    """Wrong arguments or configuration (exit code 2)."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message, fix, exit_code=2)
