"""How long a Spark Connect server that has gone away is waited for, and what is said meanwhile.

Imported only where Connect's own requirements are there.
"""

from __future__ import annotations

import logging
import threading

from pyspark.sql.connect.client.retries import DefaultPolicy  # noqa: TID253 - see above

_log = logging.getLogger(__name__)


class Patience(DefaultPolicy):
    """Tries a call for about half a minute, in place of Connect's ten, and says at once that it waits, and for whom.

    Parameters
    ----------
    server : str
        The server's address as it may be shown.
    """

    def __init__(self, server: str) -> None:
        super().__init__(max_retries=7, max_backoff=10_000)
        self._server = server
        self._said = threading.Event()
        self._ended = threading.Event()

    def can_retry(self, e: BaseException) -> bool:
        """Whether to try again; the first failure is said, those of the other calls are known by then."""
        again = not self._ended.is_set() and super().can_retry(e)
        if again and not self._said.is_set():
            self._said.set()
            _log.warning("The Spark Connect server at %s doesn't answer: waiting half a minute for it.", self._server)
        return again

    def end(self) -> None:
        """Try nothing again from now on."""
        self._ended.set()
