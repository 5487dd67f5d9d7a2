"""The errors that Touchstone raises on purpose.

MarketError
|-- ProtocolError            an input breaks the rules
|   |-- InvalidSpec          a job's document
|   |-- InvalidProgram       a program: encoding, types, limits
|   |-- InvalidOpening       a branch or record that does not prove what it claims
|   |-- InvalidBlob          bytes that are not what their CID, type or size says
|   |-- InvalidSignature     a signature or key that is not the one expected
|   `-- InvalidTransition    an action that this status does not allow
|-- ChainError               the ledger refused or is mute
|   |-- TransactionReverted  (name, args)
|   `-- NodeUnavailable*
|-- NotFound                 nothing under that id
|-- StorageFull              no room for a blob; nothing was changed
|-- TrainingError            this machine cannot train
|   |-- NondeterministicEnvironment
|   |-- InsufficientMemory   a program needs more than there is
|   |-- UnsupportedOperator  a model that cannot be lowered
|   |-- UnsupportedPartition a program that cannot be divided over processes that way
|   |-- ProcessLost          a process of the group died or does not answer
|   `-- DatasetUnavailable*
`-- AuditIncomplete          the audit could not run            (* = retryable)
"""


class MarketError(Exception):
    """Anything Touchstone refuses or cannot do, with the values in the message."""


class ProtocolError(MarketError):
    """An input from someone else breaks the rules."""


class InvalidSpec(ProtocolError):
    """A job's document breaks a rule or disagrees with what it names."""


class InvalidProgram(ProtocolError):
    """A program's bytes, types or limits are wrong."""


class InvalidOpening(ProtocolError):
    """A branch or record does not prove what it claims."""


class InvalidBlob(ProtocolError):
    """Bytes are not what their CID, type or size says."""


class InvalidSignature(ProtocolError):
    """A signature or key is not the one expected."""


class InvalidTransition(ProtocolError):
    """An action is not allowed in this status."""


class ChainError(MarketError):
    """The ledger refused."""


class TransactionReverted(ChainError):
    """A call reverted with the custom error ``name`` and its ``arguments``."""

    def __init__(self, name: str, arguments: tuple[object, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        super().__init__(f"the contract refused: {name}({', '.join(map(str, arguments))})")


class NodeUnavailable(ChainError):
    """No answer from the node; the same call may succeed later."""


class NotFound(MarketError):
    """Nothing exists under that id."""


class StorageFull(MarketError):
    """There is no room for a blob; nothing was changed."""


class TrainingError(MarketError):
    """This machine cannot train."""


class NondeterministicEnvironment(TrainingError):
    """This machine does not give the release's bits."""


class InsufficientMemory(TrainingError):
    """A program needs more memory than this machine has."""


class UnsupportedOperator(TrainingError):
    """A model uses an operator that has no lowering."""


class UnsupportedPartition(TrainingError):
    """A program cannot be divided over so many processes that way."""


class ProcessLost(TrainingError):
    """A process of this provider's group died or does not answer."""


class DatasetUnavailable(TrainingError):
    """A dataset cannot be fetched now."""


class AuditIncomplete(MarketError):
    """An audit could not run."""
