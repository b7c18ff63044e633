"""Which requests a server on this machine may take for its user's: not those that another web page sends.

A browser lets every page send requests to this machine. A page's own name stands in `Origin`; and where a page has its
name point to this machine once it is loaded (DNS rebinding), that name stands in `Host`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit


def why_foreign(headers: Mapping[str, str], listens_on: str) -> str | None:
    """Say in a sentence why a request comes from another site, or return None if it doesn't.

    Parameters
    ----------
    headers : mapping
        The request's, by names in lower case.
    listens_on : str
        The address that the server listens on, as its user gave it.

    Examples
    --------
    >>> why_foreign({"host": "127.0.0.1:5001"}, "127.0.0.1")
    >>> why_foreign({"host": "evil.example:5001"}, "127.0.0.1")
    "Host 'evil.example:5001': reach this server by an IP address, as localhost or by its machine's name."
    >>> why_foreign({"host": "localhost:5001", "origin": "https://evil.example"}, "127.0.0.1")
    "Origin 'https://evil.example': another web page may not ask this server."
    """
    host = headers.get("host", "")
    name = _name(f"//{host}")
    names = {"localhost", listens_on.lower()}
    if listens_on not in ("127.0.0.1", "::1", "localhost"):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    if not (name in names or _is_address(name)):
        return f"Host {host[:80]!r}: reach this server by an IP address, as localhost or by its machine's name."
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return f"Origin {origin[:80]!r}: another web page may not ask this server."
    return None


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
