import logging

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score, log_loss, mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder


def split_data(data: pd.DataFrame, options: dict) -> tuple:
    """Leave out rows without a target, and split the others into training and test rows."""
    data = data.dropna(subset=[options["target"]])
    X, y = data[options["features"]], data[options["target"]]
    if "chronological" in options:
        order = data[options["chronological"]].sort_values().index
        cut = int(len(order) * (1 - options["test_size"]))
        return X.loc[order[:cut]], X.loc[order[cut:]], y.loc[order[:cut]], y.loc[order[cut:]]
    return tuple(train_test_split(X, y, test_size=options["test_size"], random_state=options["random_state"]))


def train_model(X_train: pd.DataFrame, y_train: pd.Series, options: dict) -> GridSearchCV:
    """Search the grid on the training rows; categories are encoded inside, so in each fold by its own rows."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((encoder, options["categories"]), remainder="passthrough")
    kinds = {"regression": HistGradientBoostingRegressor, "classification": RandomForestClassifier}
    model = Pipeline([("columns", columns), ("model", kinds[options["task"]](random_state=0))])
    grid = {f"model__{name}": values for name, values in options["grid"].items()}
    return GridSearchCV(model, grid, cv=5).fit(X_train, y_train)


def evaluate_model(estimator: GridSearchCV, X_test: pd.DataFrame, y_test: pd.Series, options: dict) -> dict:
    """Measure the best one on the test rows."""
    predicted = estimator.predict(X_test)
    if options["task"] == "regression":
        metrics = {
            "rmse": root_mean_squared_error(y_test, predicted),
            "mae": mean_absolute_error(y_test, predicted),
            "r2": r2_score(y_test, predicted),
        }
    else:
        probabilities = estimator.predict_proba(X_test)
        metrics = {
            "log_loss": log_loss(y_test, probabilities, labels=estimator.classes_),
            "balanced_accuracy": balanced_accuracy_score(y_test, predicted),
        }
    metrics["test_rows"] = len(y_test)
    logging.getLogger(__name__).info("%s", metrics)
    return metrics
