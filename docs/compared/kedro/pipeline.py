from kedro.pipeline import Node, Pipeline, pipeline

from .nodes import evaluate_model, split_data, train_model


def create_pipeline(**kwargs) -> Pipeline:
    options, split = "params:model_options", ["X_train", "X_test", "y_train", "y_test"]
    one = Pipeline(
        [
            Node(split_data, ["table", options], split, name="split_data_node"),
            Node(train_model, ["X_train", "y_train", options], "estimator", name="train_model_node"),
            Node(evaluate_model, ["estimator", "X_test", "y_test", options], "metrics", name="evaluate_model_node"),
        ]
    )
    return sum((pipeline(one, namespace=name) for name in ("ozone", "weather", "mass")), start=Pipeline([]))
