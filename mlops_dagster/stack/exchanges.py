"""The days on which a symbol will be traded next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_dagster.errors import refuse

if TYPE_CHECKING:
    import pandas as pd

_LOOK_BACK = 250  # rows; about a year
_MISFITS = 0.02  # Two exchanges with different holidays differ on more days, a file with a day missing on fewer.
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def next_trading_days(days: pd.Series[pd.Timestamp], count: int, exchange: str) -> tuple[pd.DatetimeIndex, str]:
    """Return the trading days after the last day of some prices, and how they were counted.

    Parameters
    ----------
    days : Series of Timestamp
        The days that the symbol has prices for, increasing.
    exchange : str
        Its exchange, by its code (ISO 10383) or another name of a calendar of exchange_calendars.

    Returns
    -------
    DatetimeIndex, str
        If the prices of the last year lie on the exchange's days, its next ones. If not (a currency that is traded at
        weekends, a price a week, another country's holidays), the next days of the week on which this symbol usually
        has prices; holidays are then not known.

    Raises
    ------
    ParameterError
        If there is no such exchange.

    Examples
    --------
    >>> import pandas as pd
    >>> daily = pd.Series(pd.date_range("2024-11-01", "2024-12-23"))
    >>> found, counted = next_trading_days(daily[daily.dt.dayofweek < 5], 2, "XLON")
    >>> [str(day.date()) for day in found], counted
    (['2024-12-24', '2024-12-27'], 'days of exchange XLON')
    >>> found, counted = next_trading_days(daily, 2, "XLON")
    >>> [str(day.date()) for day in found], counted
    (['2024-12-24', '2024-12-25'], "the symbol's own days of the week (Mon Tue Wed Thu Fri Sat Sun)")
    """
    import pandas as pd

    recent = pd.DatetimeIndex(days.tail(_LOOK_BACK))
    last = recent[-1]
    sessions = _sessions(exchange, recent[0], last + pd.Timedelta(days=2 * count + 30))
    if sessions is not None:
        past, future = sessions[sessions <= last], sessions[sessions > last]
        if len(past.symmetric_difference(recent)) <= _MISFITS * len(recent) and len(future) >= count:
            return future[:count], f"days of exchange {exchange}"
    counts = recent.dayofweek.value_counts()
    usual = sorted(int(day) for day in counts[counts >= counts.max() / 2].index)
    candidates = pd.date_range(last + pd.Timedelta(days=1), periods=7 * (count // len(usual) + 1))
    own = candidates[candidates.dayofweek.isin(usual)][:count]
    return own, f"the symbol's own days of the week ({' '.join(_WEEKDAYS[day] for day in usual)})"


def _sessions(exchange: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex | None:
    """Return an exchange's days, or None if its calendar doesn't reach so far."""
    import exchange_calendars as calendars
    from exchange_calendars.errors import InvalidCalendarName

    try:
        # Its own beginning, if it isn't given one, is twenty years ago.
        found = calendars.get_calendar(exchange, start=first, end=last)
        sessions: pd.DatetimeIndex = found.sessions
    except InvalidCalendarName:
        cure = "give an exchange's code such as XNYS, XLON or XTKS; exchange_calendars lists them all."
        raise refuse("calendar", exchange, cure) from None
    except ValueError:
        return None
    return sessions
