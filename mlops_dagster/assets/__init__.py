"""All assets. Each module has those of one pipeline that others don't share."""

from mlops_dagster.assets import build_model, forecast, search

ASSETS = [
    build_model.prices,
    build_model.training_set,
    build_model.trained_model,
    build_model.champion_model,
    search.grid_search_results,
    search.spark_grid_search_results,
    forecast.price_forecast,
    forecast.forecast_quality,
]
