"""The present time and date, as files record them."""

from __future__ import annotations

import datetime as dt


def utc_now() -> str:
    """Return the present time in ISO 8601, in UTC, in whole seconds."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")


def utc_today() -> str:
    """Return the present date in ISO 8601, in UTC."""
    return dt.datetime.now(dt.timezone.utc).date().isoformat()
