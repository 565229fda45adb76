"""An end that no handler of errors catches."""


class Killed(KeyboardInterrupt):
    """What ends a run in the middle."""
