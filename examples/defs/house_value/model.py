"""What learns: categories are encoded, missing values are taken as they are."""

from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder


def make(max_iter, learning_rate, max_leaf_nodes):
    """Return the estimator, not fitted yet."""
    encode = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["kind"]), remainder="passthrough"
    )
    boosting = HistGradientBoostingRegressor(
        max_iter=max_iter, learning_rate=learning_rate, max_leaf_nodes=max_leaf_nodes, random_state=0
    )
    return make_pipeline(encode, boosting)
