"""What the article's model sees of a day: four columns, scaled over all rows, which looks ahead."""

from mlops_dagster.ml.features import article_features as scaled

__all__ = ["scaled"]
