"""`mlops`, also as ``python -m mlops_dagster``: where its libraries aren't installed, it says how to get them."""

import sys

from mlops_dagster.errors import extra_of, needs


def main() -> None:
    """Run the command line."""
    try:
        from mlops_dagster import cli

        cli.main()
    except ModuleNotFoundError as error:
        if extra_of(error.name) is None:
            raise
        print(needs("mlops", error), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
