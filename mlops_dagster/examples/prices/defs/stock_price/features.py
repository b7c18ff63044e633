"""What the honest model sees of a day: ratios and changes that only look back, free of the price level."""

from mlops_dagster.ml.features import honest_features as look_back

__all__ = ["look_back"]
