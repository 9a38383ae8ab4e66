"""The one error that people meet: what and where, expected, found, and the next command. It never carries a traceback."""

import errno


class VerbatimError(Exception):
    """Something that the person at the keyboard can mend.

    `where` is a configuration key, a file or a command; `then` is the next command to type (or the next thing to do).
    """

    def __init__(self, where: object, *, expected: str = "", found: object = "", then: str = "") -> None:
        self.where, self.expected, self.found, self.then = str(where), expected, str(found), then
        says = [f"{what} {text}" for what, text in (("expected", self.expected), ("found", self.found)) if text]
        lines = [f"{self.where}: {', '.join(says)}" if says else self.where]
        if then:
            lines.append(f"  next: {then}")
        self.message = "\n".join(lines)  # no property: torch would make another error of the class by that name
        super().__init__(self.message)


def mendable(error: BaseException | None) -> VerbatimError | None:
    """The VerbatimError that an exception is, was made from (Hydra's `instantiate` wraps what a target raises), or stands for: a full
    disk, wherever it shows."""
    while error is not None and not isinstance(error, VerbatimError):
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return VerbatimError(
                error.filename or "writing", expected="room on the disk", found="none left; what was written before is whole",
                then="free some space, and give the same command again",
            )  # fmt: skip
        error = error.__cause__
    return error


class Interrupted(BaseException):
    """SIGTERM (or SIGHUP: its name), turned into an exception, so that a run seals its record before the process ends."""
