"""The exceptions that are shown to a user as a sentence instead of a traceback."""


class UserError(ValueError):
    """An error that the user can correct; the message names key or file, value and cure.

    ``vaelab.run`` prints the message alone and exits with a non-zero status; the
    traceback is shown only under ``debug=true``.
    """


class Interrupted(BaseException):  # not an Exception: the run can be resumed
    """A run received SIGTERM, has saved its state, and can be resumed.

    Like ``KeyboardInterrupt`` it is not an ``Exception``: it may be raised anywhere, and code that
    handles failures must not catch it.

    ``vaelab.run`` prints how to resume and exits with ``EXIT_INTERRUPTED``.
    """


EXIT_INTERRUPTED = 75
"""EX_TEMPFAIL of sysexits.h: try again later, as batch systems understand it."""
