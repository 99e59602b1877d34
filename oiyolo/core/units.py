"""Format bytes, durations and money for people."""

from __future__ import annotations

from typing import Final

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_MAX_SHOWN_IN_HOURS_S: Final = 2 * _DAY_S
_UNKNOWN: Final = "?"


def format_bytes(size: float | None) -> str:
    """Return "512 B", "4.1 kB", "73.2 MB", "8.05 GB", "1.20 TB"; "?" for ``None``."""
    if size is None:
        return _UNKNOWN
    for unit, factor, digits in (("TB", 1e12, 2), ("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if abs(size) >= factor:
            return f"{size / factor:,.{digits}f} {unit}"
    return f"{size:.0f} B"


def format_duration(seconds: float | None) -> str:
    """Return "4.2 s", "31 min", "7 h 05 min", "8 d 12 h"; "?" for ``None``."""
    if seconds is None:
        return _UNKNOWN
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole_minutes = round(seconds / _MINUTE_S)
    if seconds < _HOUR_S:
        return f"{whole_minutes} min"
    if seconds < _MAX_SHOWN_IN_HOURS_S:
        return f"{whole_minutes // 60} h {whole_minutes % 60:02} min"
    whole_hours = round(seconds / _HOUR_S)
    return f"{whole_hours // 24:,} d {whole_hours % 24} h"


def format_money(amount: float | None, currency: str) -> str:
    """Return "34.12 EUR"; "? EUR" for ``None``."""
    number = _UNKNOWN if amount is None else f"{amount:,.2f}"
    return f"{number} {currency}".strip()


def cost(seconds: float | None, price_per_hour: float) -> float | None:
    """Return the price of using the machine; ``None`` if the duration is unknown."""
    return None if seconds is None else seconds / _HOUR_S * price_per_hour
