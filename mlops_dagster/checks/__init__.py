"""All checks. Each module has those of one pipeline's assets."""

from mlops_dagster.checks import build_model, forecast, search

CHECKS = [*build_model.CHECKS, *search.CHECKS, *forecast.CHECKS]
