"""What Dagster checks about each symbol's forecasts, and when: `steps/findings.py` has the answers.

All of these warn: a forecast is made all the same, and what to do about it is for people, or for the sensor
`poor_forecasts` (`sensors/poor_predictions.py`), to say.
"""

from mlops_dagster.assets.step_assets import forecast_quality, price_forecast
from mlops_dagster.checks.each_partition import check_of_each_partition
from mlops_dagster.steps import findings

CHECKS = [
    check_of_each_partition(price_forecast)(findings.forecast_is_fresh),
    check_of_each_partition(price_forecast)(findings.features_have_not_drifted),
    check_of_each_partition(forecast_quality)(findings.forecast_error_has_not_drifted),
    check_of_each_partition(forecast_quality)(findings.interval_covers_the_truth),
]
