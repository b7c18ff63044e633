"""`dbutils`, as much of it as jobs use: secrets."""

import json
from pathlib import Path


class Secrets:
    """`dbutils.secrets`: read only, from the workspace's `secrets.json`."""

    def __init__(self, file):
        self._file = file

    def _scopes(self):
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def get(self, scope, key):
        try:
            return self._scopes()[scope][key]
        except KeyError:
            raise Exception(f"Secret does not exist with scope: {scope} and key: {key}") from None

    def getBytes(self, scope, key):
        return self.get(scope, key).encode()

    def list(self, scope):
        return sorted(self._scopes().get(scope, {}))

    def listScopes(self):
        return sorted(self._scopes())


class DbUtils:
    """The object that a cluster calls `dbutils`."""

    def __init__(self, root):
        self.secrets = Secrets(Path(root, "secrets.json"))
