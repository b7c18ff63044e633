"""What `databricks.sdk.runtime` looks for to know that it runs on a cluster: the notebook's globals."""


class UserNamespaceInitializer:
    """Hands out `spark`, `sc`, `dbutils` and so on, as far as the task has them."""

    namespace = {}

    @classmethod
    def getOrCreate(cls):
        return cls

    @classmethod
    def get_namespace_globals(cls):
        return cls.namespace
