"""The one exception that reaches a user as a sentence instead of a traceback."""


class UserError(ValueError):
    """Something the user can mend: names the key or file, its value and the cure.

    ``vaelab.run`` prints the message alone and exits with a non-zero status; the
    traceback is shown only under ``debug=true``.
    """
