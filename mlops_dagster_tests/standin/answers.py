"""What the stand-in answers: status, content, type, headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int = 200
    content: bytes = b""
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        return cls(status, json.dumps(value).encode(), headers=headers or {})

    @classmethod
    def html(cls, page: str) -> Answer:
        return cls(200, page.encode(), "text/html; charset=utf-8")
