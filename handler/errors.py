"""The two errors by which a step tells its caller whether a retry can help."""


class Refused(Exception):
    """A retry cannot help; the message names the item and what to do next."""


class Unavailable(Exception):
    """Something did not answer or is not ready; a later try may succeed."""

    # Restate shows an exception by its repr.
    __repr__ = Exception.__str__
