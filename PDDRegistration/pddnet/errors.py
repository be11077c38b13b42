"""The failures a caller may want to tell apart; each carries a sentence with a remedy."""


class InputError(ValueError):
    """An argument cannot be used; the message names it, what came, what is needed and what to do."""


class RegistrationCancelled(Exception):
    """The caller asked for the registration to stop; nothing was written."""


class InsufficientMemoryError(MemoryError):
    """The estimated peak memory is above what is free."""
