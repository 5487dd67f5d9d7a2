"""Types of columns that hold the protocol's values alike in SQLite and PostgreSQL."""

from enum import IntEnum
from typing import Annotated, Final, Generic, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, Dialect, String, Text
from sqlalchemy.orm import mapped_column
from sqlalchemy.types import TypeDecorator

E = TypeVar("E", bound=IntEnum)
T = TypeVar("T")


class Digits(TypeDecorator[int]):
    """A natural number below 2^``bits`` as decimal digits of one width, so that text sorts as numbers.

    No database that we use has integers of 80 bits without rounding them somewhere."""

    impl = String
    cache_ok = True

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._width = len(str(2**bits - 1))
        super().__init__(self._width)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the digits."""
        if value is None:
            return None
        if not 0 <= value < 2**self.bits:
            raise ValueError(f"{value} is not below 2^{self.bits}: events before it are missing")
        return f"{value:0{self._width}}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Return the number."""
        return None if value is None else int(value)


class Named(TypeDecorator[E], Generic[E]):
    """A member of ``kind`` by its name in lower case, as every face of the service shows it."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[E]) -> None:
        self.kind = kind
        super().__init__(max(len(member.name) for member in kind))

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the name."""
        return None if value is None else self.kind(value).name.lower()

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:  # noqa: ARG002
        """Return the member."""
        return None if value is None else self.kind[value.upper()]


class Document(TypeDecorator[T], Generic[T]):
    """A value of the dataclass ``kind`` as the JSON that pydantic makes of it."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        self._adapter = TypeAdapter(kind)
        super().__init__()

    def process_bind_param(self, value: T | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the JSON."""
        return None if value is None else self._adapter.dump_json(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> T | None:  # noqa: ARG002
        """Return the value."""
        return None if value is None else self._adapter.validate_json(value)


_HASH_DIGITS: Final = 66  # 0x and 32 bytes in hex

Number = Annotated[int, mapped_column(BigInteger)]
Amount = Annotated[int, mapped_column(Digits(96))]  # base units; the contract keeps at most 96 bits
Bits = Annotated[int, mapped_column(Digits(256))]  # bit s: slot s
Seed = Annotated[int, mapped_column(Digits(64))]
HashText = Annotated[str, mapped_column(String(_HASH_DIGITS))]  # as JSON-RPC and JSON show it
AddressText = Annotated[str, mapped_column(String(42))]  # with EIP-55's checksum
