"""Telling secrets from settings: by the name they have, or by how they look."""

import re

_WORDS = frozenset(
    {"key", "keys", "accesskey", "apikey", "secretkey", "secret", "secrets", "token", "tokens", "sas"}
    | {"sig", "signature"}
    | {"pass", "passphrase", "passwd", "password", "pwd", "pat", "authorization"}
    | {"cred", "creds", "credential", "credentials"}
    | {"webhook", "webhooks"}  # whoever knows its address can write to it
)
# Switches and ids that have such a word in their name and hold nothing.
_HARMLESS = frozenset({"aws_skip_signature", "azure_skip_signature", "google_skip_signature", "aws_sse_kms_key_id"})

REFERENCE = re.compile(r"\{\{secrets/[^/{}]+/[^/{}]+\}\}")

# What it is called, and how it looks. The order matters: the first that fits is named.
_TOKENS = (
    ("a Databricks token", re.compile(r"\bdapi[0-9a-f]{32}(-\d+)?\b")),
    ("a Databricks OAuth secret", re.compile(r"\bdose[0-9a-f]{32}\b")),
    ("an AWS key", re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?-----END [A-Z ]*PRIVATE KEY-----|.*)", re.S)),
    ("an Azure storage key", re.compile(r"\bAccountKey=[^;\s]+")),
    ("a GitHub token", re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,})\b")),
    ("an address of a Slack webhook", re.compile(r"://hooks\.slack\.com/(services|workflows|triggers)/\S+")),
    ("a header with a credential", re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{12,}")),
)
# A port isn't a password. An address in Azure has the container's name where others have the user's.
_USER = re.compile(
    r"""(?<=://)[^\s/@:?#'"]*:(?!\d+[/?#])[^\s'"]*(?=@)"""
    r"""|(?:(?<=http://)|(?<=https://))(?!\*{3}@)[^\s/@:?#'"]+(?=@)"""
)
# A parameter of a query or of a connection's options, also after the quote that an error puts around it.
_PARAMETER = re.compile(r"""(^|[?&;\s'"])([\w.-]+)=([^&;\s'"]+)""")
_OPTION = re.compile(r"""(['"])([\w.-]+)\1\s*:\s*(['"])(?:(?!\3).)*\3""")
_PASSWORD = re.compile(r"(password|passwd|pwd|secret|token)$", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Return whether what has this name is a secret: one of the name's words is key, token, password or the like.

    Examples
    --------
    >>> [is_secret_name(name) for name in ("aws_secret_access_key", "DATABRICKS_TOKEN", "clientSecret", "sas")]
    [True, True, True, True]
    >>> [is_secret_name(name) for name in ("aws_region", "TOKENIZERS_PARALLELISM", "spark.sql.shuffle.partitions")]
    [False, False, False]
    """
    if name.lower() in _HARMLESS:
        return False
    words = re.findall(r"[a-z]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).lower())
    return not _WORDS.isdisjoint(words) or any(_PASSWORD.search(word) for word in words)


def looks_secret(text: str) -> str | None:
    """Say which kind of secret a text holds, by its shape; None if it looks like none.

    Examples
    --------
    >>> looks_secret("postgresql://mlflow:hunter2@db/mlflow")
    'a password in an address'
    >>> looks_secret("s3://bucket/folder") is None
    True
    """
    if _USER.search(text):
        return "a password in an address"
    if kind := next((kind for kind, shape in _TOKENS if shape.search(text)), None):
        return kind
    secrets = [one for one in _PARAMETER.finditer(text) if _is_secret(one) and not is_reference(one[3])]
    if not secrets:
        return None
    if text.startswith("sc://"):
        return "a token in a Spark Connect address"
    return "a signature of a shared link" if secrets[0][2] == "sig" else "a secret in the query of an address"


def token_in(text: str) -> str | None:
    r"""Say which kind of token or key a whole file of text or Python holds; its words and its code look like none.

    Examples
    --------
    >>> token_in("key = 'AKIAIOSFODNN7EXAMPLE'"), token_in("# Basic preprocessing\nconnect(password=given)")
    ('an AWS key', None)
    """
    return next((kind for kind, shape in _TOKENS[:-1] if shape.search(text)), None)


def redacted(text: str) -> str:
    """Return a text as it may be shown: addresses without passwords, in whatever part of them they are.

    Used wherever something is shown or kept that others can read: errors, logs, settings, tags, messages.

    Examples
    --------
    >>> redacted("can't reach postgresql://mlflow:hunter2@db/mlflow?sslpassword=hunter2&connect_timeout=2")
    "can't reach postgresql://***@db/mlflow?sslpassword=***&connect_timeout=2"
    >>> redacted("{'aws_region': 'eu-1', 'aws_secret_access_key': 'hunter2'}")
    "{'aws_region': 'eu-1', 'aws_secret_access_key': '***'}"
    """
    text = _USER.sub("***", text)
    text = _PARAMETER.sub(lambda one: f"{one[1]}{one[2]}=***" if _is_secret(one) else one[0], text)
    text = _OPTION.sub(_option_redacted, text)
    for _, shape in _TOKENS:
        text = shape.sub("***", text)
    return text


def _option_redacted(option: re.Match[str]) -> str:
    name, quote = option[2], option[3]
    if name.lower() in ("key", "keys") or not is_secret_name(name):  # of a pair's two halves, `key` is the name
        return option[0]
    return f"{option[1]}{name}{option[1]}: {quote}***{quote}"


def as_cause(error: BaseException) -> BaseException | None:
    """Return an error as the cause of one of ours: None if it repeats a secret, which a traceback would show."""
    return error if redacted(str(error)) == str(error) else None


def _is_secret(parameter: re.Match[str]) -> bool:
    # In a query any name will do. Elsewhere `key=` is as likely to be a row's.
    names = is_secret_name if parameter[1] in ("?", "&", ";") else _PASSWORD.search
    return bool(names(parameter[2])) and parameter[3] != "***"


def is_reference(text: str) -> bool:
    """Return whether a text only names a secret of a Databricks workspace, which the cluster looks up.

    Examples
    --------
    >>> is_reference("{{secrets/mlops/s3_key}}")
    True
    """
    return REFERENCE.fullmatch(text.strip()) is not None
