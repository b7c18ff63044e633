"""The settings of what runs by itself: when, which inbox is watched, when a model is built anew, whom to tell.

Everything is checked without importing what will use it: the code location and each command read these settings.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_dagster.spec.times import Cron, TimeZone


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ScheduleChange(_Settings):
    """What a deployment changes of a schedule; what isn't given is as declared."""

    cron: Cron | None = Field(default=None, description="Minute, hour, day, month, weekday")
    timezone: TimeZone | None = Field(default=None, description="Of whose clocks, by its IANA name")
    default: Literal["running", "stopped"] | None = Field(
        default=None, description="Whether it is on before somebody turns it on or off in Dagster"
    )


class InboxSettings(_Settings):
    """Where new files are dropped."""

    path: str | None = Field(
        default="inbox",
        description="A folder with one for each model or dataset, which takes PARTITION.csv, PARTITION.parquet, or a "
        "folder PARTITION of such files; null: none is watched",
    )

    @field_validator("path")
    @classmethod
    def _is_a_folder_here(cls, path: str | None) -> str | None:
        if path is not None and ("://" in path or "{" in path or not path.strip()):
            raise ValueError("give a folder of this machine; a file's name, or its folder's, says its partition")
        return path


class RetrainSettings(_Settings):
    """When poor predictions lead to a new model."""

    skill_below: float = Field(
        default=-0.05,
        lt=1,
        description="Skill of the last 100 predictions whose truth has come: 1 is perfect, 0 as good as the baseline; "
        "below this a model is built",
    )
    days_scored: int = Field(
        default=20, ge=1, description="The truth of how many has to have come before anything is concluded"
    )
    every_days: int = Field(default=7, ge=1, description="At most one such build of a model in so many days")


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
