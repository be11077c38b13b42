"""The failures a caller may want to tell apart; each carries a sentence with a remedy."""


class InputError(ValueError):
    """An argument cannot be used; the message names it, what came, what is needed and what to do."""


class DeviceError(InputError):
    """The device asked for is not there."""


class RegistrationCancelled(Exception):
    """The caller asked for the registration to stop; nothing was written."""


class TrainingCancelled(RegistrationCancelled):
    """The caller asked for the training to stop; it can be resumed."""


class InsufficientMemoryError(MemoryError):
    """The estimated peak memory is above what is free."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; PyTorch says it with a RuntimeError."""
    said = str(error).lower()
    phrases = ("out of memory", "can't allocate memory", "alloc_failed")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(p in said for p in phrases)
    )
