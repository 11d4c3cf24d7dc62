"""The exceptions that reach a user as a sentence instead of a traceback."""


class UserError(ValueError):
    """Something the user can mend: names the key or file, its value and the cure.

    ``vaelab.run`` prints the message alone and exits with a non-zero status; the
    traceback is shown only under ``debug=true``.
    """


class Interrupted(BaseException):  # it is no error: the run can go on
    """A run was asked to stop (SIGTERM), has saved itself, and can be resumed.

    As ``KeyboardInterrupt``, it is no ``Exception``: it may come anywhere, and nobody who expects
    that something may fail there should take it for that.

    ``vaelab.run`` says how to go on and exits with ``EXIT_INTERRUPTED``.
    """


EXIT_INTERRUPTED = 75
"""EX_TEMPFAIL of sysexits.h: try again later, as batch systems understand it."""
