"""Every error shoal raises on purpose.

    ShoalError
    ├── RecipeError      (ValueError)    the recipe says something that cannot be
    ├── DataError        (ValueError)    rows, files or shards that cannot be used
    ├── BaseModelError   (ValueError)    the base cannot be found, read or recognised
    ├── AdapterError     (ValueError)    the adapter does not fit the base, or did not move
    ├── CheckpointError  (ValueError)    a checkpoint that is missing, torn or of another run
    ├── StorageError     (OSError)       a path that cannot be written or read
    ├── InstallError     (RuntimeError)  the environment shoal runs in is not its own
    ├── ClusterError     (RuntimeError)  the cluster lacks what the recipe asks for
    │   └── NodesLostError               a job has lost nodes; queued again it gets others
    └── TrainingError    (RuntimeError)  a rank failed while it trained
        └── BadLossError                 a step whose loss is no number, or far from the others

Each is also a subclass of its standard kin, holds one message, and survives pickling, because
it has to cross from a worker process to the driver. The message names the place, the value and
the fix.
"""


class ShoalError(Exception):
    """Root of shoal's errors. `str(error)` is the whole text a person is shown."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class RecipeError(ShoalError, ValueError):
    """A recipe with one or more problems; the message lists all of them."""


class DataError(ShoalError, ValueError):
    """Source files, rows or prepared shards that cannot be used."""


class BaseModelError(ShoalError, ValueError):
    """The base model cannot be found, read or recognised."""


class AdapterError(ShoalError, ValueError):
    """The adapter does not fit the base, or did not change while it trained."""


class CheckpointError(ShoalError, ValueError):
    """A checkpoint is missing, incomplete, altered, or belongs to another run."""


class StorageError(ShoalError, OSError):
    """A path that cannot be written to or read from."""


class InstallError(ShoalError, RuntimeError):
    """Another distribution or folder takes the name of one of shoal's packages."""


class ClusterError(ShoalError, RuntimeError):
    """The cluster cannot be reached, or has less than the recipe asks for."""


class NodesLostError(ClusterError):
    """A job has fewer nodes left than its run needs; queued again it would get others."""


class TrainingError(ShoalError, RuntimeError):
    """A rank failed while it trained or evaluated."""


class BadLossError(TrainingError):
    """A step whose loss is not finite, or a spike. `batches` are what would have to be left out."""

    def __init__(self, message: str, batches: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.batches = batches

    def __reduce__(self) -> tuple[type["BadLossError"], tuple[object, ...]]:
        return BadLossError, (self.message, self.batches)
