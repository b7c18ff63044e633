"""The settings of what runs by itself: when, which inbox is watched, when a model is built anew, whom to tell.

Everything is checked without importing what will use it: the code location and each command read these settings.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import zoneinfo
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ScheduleSettings(_Settings):
    """When the schedules are due, and on which exchange's days."""

    exchange: str = Field(
        default="XNYS", description="The exchange whose days count, by its ISO 10383 code; 24/5 and 24/7 without one"
    )
    timezone: str = Field(default="America/New_York", description="In which the two times below are, by its IANA name")
    forecast: str = Field(
        default="30 18 * * *",
        description="When prices are fetched and forecast, as cron; days on which the exchange is closed are skipped",
    )
    search: str = Field(default="0 6 * * 6", description="When hyper-parameters are searched, as cron")

    @field_validator("exchange")
    @classmethod
    def _is_an_exchange(cls, exchange: str) -> str:
        known = exchanges()
        if known and exchange not in known:
            meant = difflib.get_close_matches(exchange.upper(), known, n=3, cutoff=0.5) or ["XNYS", "XLON", "XTKS"]
            raise ValueError(
                f"there is no such exchange; give an ISO 10383 code such as {', '.join(meant)}, or 24/7 for prices of "
                "every day"
            )
        return exchange

    @field_validator("timezone")
    @classmethod
    def _is_a_time_zone(cls, timezone: str) -> str:
        try:
            zoneinfo.ZoneInfo(timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            meant = difflib.get_close_matches(timezone, sorted(zoneinfo.available_timezones()), n=1)
            cure = f"did you mean {meant[0]}?" if meant else "give an IANA name such as America/New_York or UTC"
            raise ValueError(f"there is no such time zone; {cure}") from None
        return timezone

    @field_validator("forecast", "search")
    @classmethod
    def _is_cron(cls, cron: str) -> str:
        if wrong := _wrong_cron(cron):
            raise ValueError(f"{wrong}; give minute, hour, day, month and weekday, such as '30 18 * * 1-5'")
        return cron


class InboxSettings(_Settings):
    """Where new price files are dropped."""

    path: str | None = Field(
        default="inbox",
        description="A folder with SYMBOL.csv, SYMBOL.parquet or folders SYMBOL of such files; null: none is watched",
    )

    @field_validator("path")
    @classmethod
    def _is_a_folder_here(cls, path: str | None) -> str | None:
        if path is not None and ("://" in path or "{" in path or not path.strip()):
            raise ValueError("give a folder of this machine; a file's name, or its folder's, says its symbol")
        return path


class RetrainSettings(_Settings):
    """When poor forecasts lead to a new model."""

    skill_below: float = Field(
        default=-0.05,
        lt=1,
        description="Skill of the last 20 scored days against 'the price stays as it is'; below this a model is built",
    )
    days_scored: int = Field(
        default=20, ge=1, description="How many days have to be scored before anything is concluded"
    )
    every_days: int = Field(default=7, ge=1, description="At most one such build per symbol in so many days")


class EmailSettings(_Settings):
    """A mail server, and who writes to whom. The password comes from MLOPS_NOTIFY__EMAIL__PASSWORD."""

    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="tls is for port 465; none is for a server on this machine"
    )
    sender: str
    to: list[str] = Field(min_length=1)
    username: str | None = None
    password: str | None = Field(default=None, repr=False)

    @field_validator("sender", "to")
    @classmethod
    def _are_addresses(cls, given: str | list[str]) -> str | list[str]:
        for address in [given] if isinstance(given, str) else given:
            # What a header could be smuggled in with, and what no server would take.
            if not re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+", address):
                raise ValueError("give an address such as team@example.com, without a name")
        return given

    @model_validator(mode="after")
    def _logs_in_or_not(self) -> EmailSettings:
        if self.password and not self.username:
            raise ValueError("there is a password but no username; add it")
        if self.password and self.security == "none":
            raise ValueError("a password would travel unencrypted; give security: starttls or tls")
        return self


class NotifySettings(_Settings):
    """Whom to tell when a run fails. Whoever knows a webhook's address can write to it: they come from variables."""

    webhook_url: str | None = Field(
        default=None, repr=False, description="Gets a POST with JSON; from MLOPS_NOTIFY__WEBHOOK_URL"
    )
    slack_webhook_url: str | None = Field(
        default=None, repr=False, description="Slack's incoming webhook; from MLOPS_NOTIFY__SLACK_WEBHOOK_URL"
    )
    email: EmailSettings | None = None

    @field_validator("webhook_url", "slack_webhook_url")
    @classmethod
    def _are_urls(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
            raise ValueError("give an address that begins with https://")
        return url

    @property
    def channels(self) -> list[str]:
        """The names of those that are configured."""
        return [name for name in type(self).model_fields if getattr(self, name)]


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
