"""When something is due: cron, time zones and exchanges, checked without importing what will use them."""

from __future__ import annotations

import difflib
import importlib.util
import zoneinfo
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def check_calendar(calendar: str) -> str:
    """Return the code of an exchange; anything else is a ValueError with the cure."""
    known = exchanges()
    if known and calendar not in known:
        meant = difflib.get_close_matches(calendar.upper(), known, n=3, cutoff=0.5) or ["XNYS", "XLON", "XTKS"]
        raise ValueError(
            f"there is no such exchange; give an ISO 10383 code such as {', '.join(meant)}, or 24/7 for prices of "
            "every day"
        )
    return calendar


def check_timezone(timezone: str) -> str:
    """Return the name of a time zone; anything else is a ValueError with the cure."""
    try:
        zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        meant = difflib.get_close_matches(timezone, sorted(zoneinfo.available_timezones()), n=1)
        cure = f"did you mean {meant[0]}?" if meant else "give an IANA name such as America/New_York or UTC"
        raise ValueError(f"there is no such time zone; {cure}") from None
    return timezone


def check_cron(cron: str) -> str:
    """Return a cron expression; anything else is a ValueError with the cure."""
    if wrong := _wrong_cron(cron):
        raise ValueError(f"{wrong}; give minute, hour, day, month and weekday, such as '30 18 * * 1-5'")
    return cron


Calendar = Annotated[str, AfterValidator(check_calendar)]
TimeZone = Annotated[str, AfterValidator(check_timezone)]
Cron = Annotated[str, AfterValidator(check_cron)]


@cache
def exchanges() -> tuple[str, ...]:
    """Return the codes of all exchanges whose calendars are installed; none if the package isn't.

    By the names of its files, since importing it takes a second and brings pandas along.
    """
    found = importlib.util.find_spec("exchange_calendars")
    if found is None or found.origin is None:
        return ()
    files = Path(found.origin).parent.glob("exchange_calendar_????.py")
    return ("24/5", "24/7", *sorted(file.stem.rpartition("_")[2].upper() for file in files))


_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_CRON: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)


def _wrong_cron(cron: str) -> str | None:
    """Say what is wrong with a cron expression; None if nothing is.

    Examples
    --------
    >>> _wrong_cron("*/15 9-17 * * mon-fri") is None
    True
    >>> _wrong_cron("30 25 * * *")
    "the hour '25' is not from 0 to 23"
    """
    fields = cron.split()
    if len(fields) != len(_CRON):
        return f"it has {len(fields)} parts instead of 5"
    for field, (name, lowest, highest, words) in zip(fields, _CRON, strict=True):
        for part in field.lower().split(","):
            span, _, step = part.partition("/")
            ends = [] if span == "*" else span.split("-")
            numbers = [str(words.index(end) + (name == "month")) if end in words else end for end in ends]
            if not all(number.isascii() and number.isdigit() for number in numbers) or len(numbers) > 2:
                return f"the {name} {field!r} is no number, range or list"
            if not all(lowest <= int(number) <= highest for number in numbers):
                return f"the {name} {field!r} is not from {lowest} to {highest}"
            if len(numbers) == 2 and int(numbers[0]) > int(numbers[1]):
                return f"the {name} {field!r} ends before it begins"
            if "/" in part and not (step.isascii() and step.isdigit() and int(step) > 0):
                return f"the step of the {name} {field!r} is no number"
    if fields[3] in ("2", "feb") and fields[2] in ("30", "31"):
        return "February has no such day"
    return None
