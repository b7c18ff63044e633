"""How much is read at most of a table: what a deployment says.

Files of others are untrusted: a few kilobytes can say that they hold gigabytes. Real ones are far below the limits.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

_CELL = 1_000  # characters


class LimitSettings(BaseModel):
    """How large a table may be. A century of trading days has 25,000 rows and 2 MB."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rows: int = Field(
        default=250_000, ge=1, le=2**31 - 1, description="Rows of a table, all its files together; also files"
    )
    columns: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Columns of a table, and thousands of characters of a CSV file's line",
    )
    mebibytes: int = Field(
        default=64, ge=1, le=2**20, description="MiB of a table's files, compressed and decompressed"
    )

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return self.mebibytes * 1024**2

    @property
    def line(self) -> int:
        """The characters of a CSV file's line, or of a row that goes on over several."""
        return self.columns * _CELL


def raise_it(setting: str) -> str:
    """Say how to allow more.

    Examples
    --------
    >>> raise_it("rows")
    'If it is right, raise limits.rows of the deployment (MLOPS_LIMITS__ROWS).'
    """
    return f"If it is right, raise limits.{setting} of the deployment (MLOPS_LIMITS__{setting.upper()})."
