"""Dates and times of query results as text, also those that Python has no value for."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

_FOUR_CENTURIES = 146_097  # days, after which the calendar repeats
_EPOCH = date(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_ENDLESS = {(1 << bits) - 1: "infinity" for bits in (31, 63)}
_ENDLESS |= {-value: f"-{text}" for value, text in _ENDLESS.items()}

Reader = Callable[[Any], Any]


def is_endless(value: int) -> bool:
    """Say whether a date or a timestamp, as its number, is DuckDB's infinity or minus infinity."""
    return value in _ENDLESS


def as_numbers(array: pa.Array) -> pa.Array:
    """Return the array with every date and time in it, also in lists and structs, as its number."""
    numbers = _numbers(array.type)
    return array if numbers == array.type else array.cast(numbers)


def reader_of(kind: pa.DataType, people: bool) -> Reader | None:
    """Return what makes text of the dates and times in values that ``as_numbers`` left, or None.

    ``kind`` is their type before. For ``people`` a blank stands before the time, and seconds are
    whole.
    """
    found: Reader | None = None
    if pa.types.is_date32(kind):
        found = _date
    elif pa.types.is_timestamp(kind):
        found = _timestamp(kind, people)
    elif pa.types.is_time(kind):
        found = _time(_PER_SECOND[kind.unit])
    elif pa.types.is_map(kind):
        found = _mapping(kind, people)
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        item = reader_of(kind.value_type, people)
        found = item and (lambda values: [*map(item, values)])
    elif pa.types.is_struct(kind):
        found = _record(kind, people)
    return found and (lambda value: None if value is None else found(value))


def _numbers(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return pa.int32()
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return pa.int64()
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_map(kind):
        return pa.map_(_numbers(kind.key_type), _numbers(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_numbers(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_numbers(kind.value_type)), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_numbers(field.type)) for field in kind])
    return kind


def _record(kind: pa.DataType, people: bool) -> Reader | None:
    readers = {field.name: reader_of(field.type, people) for field in kind}
    if not any(readers.values()):
        return None

    def read(record: dict[str, Any]) -> dict[str, Any]:
        return {name: of(record[name]) if of else record[name] for name, of in readers.items()}

    return read


def _mapping(kind: pa.DataType, people: bool) -> Reader:
    kinds = (kind.key_type, kind.item_type)
    key, item = (reader_of(one, people) or (lambda value: value) for one in kinds)
    return lambda pairs: {key(one): item(other) for one, other in pairs}


def _date(days: int) -> str:
    if days in _ENDLESS:
        return _ENDLESS[days]
    cycles, rest = divmod(days, _FOUR_CENTURIES)
    day = _EPOCH + timedelta(rest)
    year = day.year + 400 * cycles
    text = f"{year if year > 0 else 1 - year:04d}-{day.month:02d}-{day.day:02d}"
    return text if year > 0 else f"{text} (BC)"


def _timestamp(kind: pa.DataType, people: bool) -> Reader:
    per_second, zone = _PER_SECOND[kind.unit], "+00:00" if kind.tz else ""
    time = _time(per_second, whole=people)

    def read(value: int) -> str:
        if value in _ENDLESS:
            return _ENDLESS[value]
        days, rest = divmod(value, 86_400 * per_second)
        day = _date(days)
        return f"{day}{' ' if people or day.endswith(')') else 'T'}{time(rest)}{zone}"

    return read


def _time(per_second: int, *, whole: bool = False) -> Callable[[int], str]:
    def read(value: int) -> str:
        seconds, fraction = divmod(value, per_second)
        minutes, seconds = divmod(seconds, 60)
        text = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
        if whole or not fraction:
            return text
        digits = f"{fraction * (10**9 // per_second):09d}"
        return f"{text}.{digits.removesuffix('000')}"

    return read
