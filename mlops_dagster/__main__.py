"""`mlops`, also as ``python -m mlops_dagster``: where its libraries aren't installed, it says how to get them."""

import sys

from mlops_dagster.errors import EXTRA_OF, needs


def main() -> None:
    """Run the command line."""
    try:
        from mlops_dagster import cli

        cli.main()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA_OF:
            raise
        print(needs("mlops", error), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
