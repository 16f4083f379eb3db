"""Everything the harness raises on purpose.

HarnessError
├── UsageError         what the person typed or wrote is wrong; they mend it          exit 2
│   ├── RegistryError      model_registry.yaml
│   ├── ProbeError         a probe file
│   └── PolicyError        a policy file
└── OperationalError   the request is fine, but the world did not play along          exit 4
    ├── ModelError         a model folder is broken, hostile or unsupported
    ├── AdapterError       an adapter is broken or belongs to another model
    ├── ConversionError    the GGUF converter refused, or what it wrote is unusable
    ├── EvidenceError      stored evidence is unreadable, locked, or from a newer harness
    ├── FetchError         something that had to be downloaded could not be
    ├── ToolMissingError   an optional engine or tool is not installed on this machine
    └── WorkerDied         a worker process was killed or crashed outside Python

Each message is one sentence that says what, where and how to mend it.
"""

from __future__ import annotations


class HarnessError(Exception):
    """Base of all deliberate errors; `exit_code` is what the command line returns."""

    exit_code = 4


class UsageError(HarnessError):
    exit_code = 2


class RegistryError(UsageError):
    pass


class ProbeError(UsageError):
    pass


class PolicyError(UsageError):
    pass


class OperationalError(HarnessError):
    exit_code = 4


class ModelError(OperationalError):
    pass


class AdapterError(OperationalError):
    pass


class ConversionError(OperationalError):
    """Converter failure. `tensor` is the tensor or setting at fault, `fix` how to mend it.

    `machine` is True where it tells of this machine (disk, memory, time) and nothing of the model.
    """

    def __init__(
        self,
        message: str,
        *,
        tensor: str | None = None,
        fix: str | None = None,
        machine: bool = False,
    ) -> None:
        super().__init__(message)
        self.tensor = tensor
        self.fix = fix
        self.machine = machine

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only fields would be lost on the way back from a worker process.
        return (_rebuild_conversion_error, (self.args[0], self.tensor, self.fix, self.machine))


def _rebuild_conversion_error(
    message: str, tensor: str | None, fix: str | None, machine: bool
) -> ConversionError:
    return ConversionError(message, tensor=tensor, fix=fix, machine=machine)


class EvidenceError(OperationalError):
    pass


class FetchError(OperationalError):
    pass


class ToolMissingError(OperationalError):
    pass


class WorkerDied(OperationalError):
    """A worker process ended without an answer; `log_tail` holds the end of its stderr."""

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.log_tail = log_tail
