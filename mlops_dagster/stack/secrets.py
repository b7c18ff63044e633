"""Telling secrets from settings: by the name they have, or by how they look.

What belongs here: the two questions, asked wherever something is written down, sent or shown. What doesn't: the rules
about where a secret may be (`deployment_rules.py`), and secrets themselves.
"""

import re

_WORDS = frozenset(
    {"key", "keys", "accesskey", "apikey", "secretkey", "secret", "secrets", "token", "tokens", "sas", "signature"}
    | {"pass", "passphrase", "passwd", "password", "pwd", "pat", "authorization"}
    | {"cred", "creds", "credential", "credentials"}
    | {"webhook", "webhooks"}  # whoever knows its address can write to it
)
# Switches and ids that have such a word in their name and hold nothing.
_HARMLESS = frozenset({"aws_skip_signature", "azure_skip_signature", "google_skip_signature", "aws_sse_kms_key_id"})

REFERENCE = re.compile(r"\{\{secrets/[^/{}]+/[^/{}]+\}\}")

# What it is called, and how it looks. The order matters: the first that fits is named.
_SHAPES = (
    ("a Databricks token", re.compile(r"\bdapi[0-9a-f]{32}(-\d+)?\b")),
    ("a Databricks OAuth secret", re.compile(r"\bdose[0-9a-f]{32}\b")),
    ("an AWS key", re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("an Azure storage key", re.compile(r"\bAccountKey=[^;\s]+")),
    ("a signature of a shared link", re.compile(r"[?&;]sig=[^&;\s]+")),
    ("a GitHub token", re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,})\b")),
    ("a password in an address", re.compile(r"://[^/\s:@?#]*:[^/\s@?#]+@")),
    ("an address of a Slack webhook", re.compile(r"://hooks\.slack\.com/(services|workflows|triggers)/\S")),
    ("a token in a Spark Connect address", re.compile(r"^sc://.*;\s*token=", re.IGNORECASE)),
)


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
    return not _WORDS.isdisjoint(words)


def looks_secret(text: str) -> str | None:
    """Say which kind of secret a text holds, by its shape; None if it looks like none.

    Examples
    --------
    >>> looks_secret("postgresql://mlflow:hunter2@db/mlflow")
    'a password in an address'
    >>> looks_secret("s3://bucket/folder") is None
    True
    """
    return next((kind for kind, shape in _SHAPES if shape.search(text)), None)


def without_secrets(text: str) -> str:
    """Return a text with everything replaced that looks like a secret by its shape.

    Examples
    --------
    >>> without_secrets("can't reach postgresql://mlflow:hunter2@db/mlflow")
    "can't reach postgresql***db/mlflow"
    """
    for _, shape in _SHAPES:
        text = shape.sub("***", text)
    return text


def is_reference(text: str) -> bool:
    """Return whether a text only names a secret of a Databricks workspace, which the cluster looks up.

    Examples
    --------
    >>> is_reference("{{secrets/mlops/s3_key}}")
    True
    """
    return REFERENCE.fullmatch(text.strip()) is not None
