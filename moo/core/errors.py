"""The tree of errors. Each says in one line what must hold, what came, and the way out.

MooError
|-- InputError (ValueError)         bad input: exit status 2
|   |-- ConfigChangedError          the same study name with a changed configuration
|   `-- PolicyError                 refused by the release policy or the privacy budget
|-- MachineError (OSError)          disk, network, storage: exit status 3
|   |-- DownloadError               no network, or an archive with a wrong hash
|   `-- StorageError                an unreadable, locked or full storage
`-- TrialError (RuntimeError)       one trial failed; the study records the cause and goes on
"""

from moo.core.messages import Message


class MooError(Exception):
    """Base of every error that moo raises on purpose.

    Attributes:
        message: Text of the error. With `values` it is their template: `InputError("x must be > 0,
            got {x}.", x=-1)`.
        exit_status: Exit status of the command that ends with this error.
    """

    exit_status = 1

    def __init__(self, message: str, /, **values: object) -> None:
        super().__init__(Message(message, **values) if values else message)

    @property
    def message(self) -> str:
        return self.args[0]  # type: ignore[no-any-return]


class InputError(MooError, ValueError):
    """An argument, a file or a configuration does not hold what it must."""

    exit_status = 2


class ConfigChangedError(InputError):
    """A study of this name exists with another configuration."""


class PolicyError(InputError):
    """The release policy or the privacy budget refuses the step."""


class MachineError(MooError, OSError):
    """The machine, not the input, is at fault: disk, network or storage."""

    exit_status = 3


class DownloadError(MachineError):
    """A download failed, or its hash is not the pinned one."""


class StorageError(MachineError):
    """A storage cannot be read or written."""


class TrialError(MooError, RuntimeError):
    """One trial failed; `cause` is the short name that is recorded with it."""

    def __init__(self, message: str, /, *, cause: str, **values: object) -> None:
        super().__init__(message, **values)
        self.cause = cause

    def __reduce__(self) -> tuple[object, ...]:
        return _trial_error, (self.message, self.cause)


def _trial_error(message: str, cause: str) -> TrialError:
    return TrialError(message, cause=cause)
