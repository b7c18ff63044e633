"""How the files of a table are written, as a declaration says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

PACKED = (".gz", ".bz2", ".xz", ".zip")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SAVE = "Save it as CSV in UTF-8."
_KINDS = {".parquet": "parquet", ".pq": "parquet", ".xlsx": "excel", ".xlsm": "excel"}


@dataclass(frozen=True)
class Form:
    """How the files of a table are written.

    Parameters
    ----------
    kind : {"csv", "parquet", "excel"}, optional
        Not given: by each file's name.
    separator, encoding : str
        Of CSV.
    missing : tuple of str
        The cells of CSV that are missing values, without the blanks around them.
    index : bool
        Whether the first column has no name and is left out.
    sheet : str, optional
        Of Excel. Not given: the first.
    declared : bool
        Whether it is said in a declaration, whose settings then are the cure.
    """

    kind: str | None = None
    separator: str = ","
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ("",)
    index: bool = False
    sheet: str | None = None
    declared: bool = False

    @property
    def resave(self) -> str:
        """What helps if a text isn't in the encoding."""
        return "Say which it is with data.files.encoding, or save it as CSV in UTF-8." if self.declared else SAVE

    def kind_of(self, name: str) -> str:
        """Return which kind of file one is that is called so."""
        path = PurePath(name.split("?")[0] if "://" in name else name)
        path = path.with_suffix("") if path.suffix.lower() in PACKED else path
        return self.kind or _KINDS.get(path.suffix.lower(), "csv")
