"""When the next rows of a series are to come: on the days of an exchange, or as its own times go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse

if TYPE_CHECKING:
    import pandas as pd

_LOOK_BACK = 250  # rows; of days about a year
_MISFITS = 0.02  # Two exchanges with different holidays differ on more days, a file with a day missing on fewer.
_HOLIDAYS = 0.1  # Of the days of the week that a series keeps, so many may be missing.
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def next_times(times: pd.Series[Any], count: int, calendar: str | None = None) -> tuple[pd.Index[Any] | None, str]:
    """Return when the next rows of a series are to come, and how that was found.

    Parameters
    ----------
    times : Series
        Those of its rows, increasing: dates, or numbers.
    count : int
        How many rows.
    calendar : str, optional
        The exchange on whose days there are rows, by its code (ISO 10383) or another name of a calendar of
        exchange_calendars.

    Returns
    -------
    Index or None, str
        If the times of the last year lie on the exchange's days, its next ones. If not, or without one: as the times go
        on that are equally far apart, or begin each month; else the next days of the week on which there usually are
        rows, holidays not known. None if they are none of that.

    Raises
    ------
    ParameterError
        If there is no such exchange.

    Examples
    --------
    >>> import pandas as pd
    >>> daily = pd.Series(pd.date_range("2024-11-01", "2024-12-23"))
    >>> weekdays = daily[daily.dt.dayofweek < 5]
    >>> found, how = next_times(weekdays, 2, "XLON")
    >>> [str(day.date()) for day in found], how
    (['2024-12-24', '2024-12-27'], 'days of exchange XLON')
    >>> found, how = next_times(daily, 2, "XLON")
    >>> [str(day.date()) for day in found], how
    (['2024-12-24', '2024-12-25'], 'as regular as those before (D)')
    >>> found, how = next_times(weekdays.drop(weekdays.index[9]), 2)
    >>> [str(day.date()) for day in found], how
    (['2024-12-24', '2024-12-25'], 'the usual days of the week (Mon Tue Wed Thu Fri)')
    >>> next_times(pd.Series([2, 4, 6]), 2)[0].tolist()
    [8.0, 10.0]
    """
    import pandas as pd

    recent = pd.Index(times.tail(_LOOK_BACK))
    unknown = None, "not known: the times before aren't regular"
    if recent.hasnans or not recent.is_unique or len(recent) < 3:
        return unknown
    if not isinstance(recent, pd.DatetimeIndex):
        apart: Any = pd.Series(recent).diff().dropna().unique() if recent.dtype.kind in "iuf" else []
        if len(apart) != 1:
            return unknown
        found = pd.RangeIndex(1, count + 1) * apart[0] + recent[-1]
        return found, f"as regular as those before ({apart[0]:g})"
    recent = recent.as_unit("us")
    last = recent[-1]
    sessions = (
        _sessions(calendar, recent[0], last + pd.Timedelta(days=2 * count + 30))
        if calendar and recent.tz is None
        else None
    )
    if sessions is not None:
        past, future = sessions[sessions <= last], sessions[sessions > last]
        if len(past.symmetric_difference(recent)) <= _MISFITS * len(recent) and len(future) >= count:
            return future[:count], f"days of exchange {calendar}"
    if freq := pd.infer_freq(recent):
        return pd.date_range(last, periods=count + 1, freq=freq)[1:], f"as regular as those before ({freq})"
    counts = recent.dayofweek.value_counts()
    usual = sorted(int(day) for day in counts[counts >= counts.max() / 2].index)
    since = pd.date_range(recent[0], last)
    if not (recent == recent.normalize()).all() or len(recent) < (1 - _HOLIDAYS) * since.dayofweek.isin(usual).sum():
        return unknown
    candidates = pd.date_range(last + pd.Timedelta(days=1), periods=7 * (count // len(usual) + 1))
    own = candidates[candidates.dayofweek.isin(usual)][:count]
    return own, f"the usual days of the week ({' '.join(_WEEKDAYS[day] for day in usual)})"


def _sessions(exchange: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex | None:
    """Return an exchange's days, or None if its calendar doesn't reach so far."""
    import exchange_calendars as calendars
    from exchange_calendars.errors import InvalidCalendarName

    try:
        # Its own beginning, if it isn't given one, is twenty years ago.
        found = calendars.get_calendar(exchange, start=first.normalize(), end=last.normalize())
        sessions: pd.DatetimeIndex = found.sessions
    except InvalidCalendarName:
        cure = "give an exchange's code such as XNYS, XLON or XTKS; exchange_calendars lists them all."
        raise refuse("calendar", exchange, cure) from None
    except ValueError:
        return None
    return sessions
