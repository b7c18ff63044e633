"""The types that a stored model may hold.

skops opens what it knows to be harmless by itself: estimators, arrays, numbers. The rest has to be named, since a
forged file could make any of it do harm. Named here are scikit-learn's own internals, and the models of XGBoost and
LightGBM, which hold nothing but their library's own format. Others are named by the declaration
(``estimator.trusted``): never by the registry, which whoever forges a file could write to as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mlops_dagster.errors import MlopsError, refuse

# What fitted estimators are made of, found by storing one of each; they hold data, and call nothing but each other.
_OF_SKLEARN = {
    "builtins": "object",
    "functools": "partial",
    "numpy": "dtype mean",
    "scipy._lib.array_api_compat.numpy._aliases": "asarray",
    "scipy.interpolate._bsplines": "BSpline",
    "sklearn._loss.loss": "AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss "
    "HalfPoissonLoss HalfSquaredError HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss",
    "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
    "sklearn.compose._column_transformer": "make_column_selector",
    "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_regression r_regression",
    "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels": "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern "
    "PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel",
    "sklearn.impute._iterative": "_ImputerTriplet",
    "sklearn.metrics._classification": "accuracy_score balanced_accuracy_score f1_score jaccard_score log_loss "
    "matthews_corrcoef precision_score recall_score",
    "sklearn.metrics._dist_metrics": "BrayCurtisDistance64 CanberraDistance64 ChebyshevDistance64 DiceDistance64 "
    "EuclideanDistance64 HammingDistance64 HaversineDistance64 JaccardDistance64 ManhattanDistance64 "
    "MinkowskiDistance64 SEuclideanDistance64",
    "sklearn.metrics._ranking": "average_precision_score roc_auc_score",
    "sklearn.metrics._regression": "max_error mean_absolute_error mean_squared_error median_absolute_error r2_score "
    "root_mean_squared_error",
    "sklearn.metrics._scorer": "_CurveScorer _PassthroughScorer _Scorer",
    "sklearn.model_selection._split": "GroupKFold GroupShuffleSplit KFold RepeatedKFold RepeatedStratifiedKFold "
    "ShuffleSplit StratifiedGroupKFold StratifiedKFold StratifiedShuffleSplit TimeSeriesSplit",
    "sklearn.multiclass": "_ConstantPredictor",
    "sklearn.neighbors._ball_tree": "BallTree",
    "sklearn.neighbors._kd_tree": "KDTree",
    "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "sklearn.tree._tree": "Tree",
    "sklearn.utils._bunch": "Bunch",
    "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
    "sklearn.utils.validation": "check_array",
}
_OF_BOOSTING = {
    "collections": "OrderedDict",
    "lightgbm.basic": "Booster",
    "lightgbm.sklearn": "LGBMClassifier LGBMRegressor",
    "xgboost.core": "Booster",
    "xgboost.sklearn": "XGBClassifier XGBRegressor XGBRFClassifier XGBRFRegressor",
}
TRUSTED = tuple(
    f"{module}.{name}"
    for said in (_OF_SKLEARN, _OF_BOOSTING)
    for module, names in said.items()
    for name in names.split()
)

_BESIDE = re.compile(r"^mlops_dagster_models\.\w+(?=\.)")


def types_in(content: bytes) -> set[str]:
    """Return the types in a stored model that skops doesn't know to be harmless, without opening it."""
    import skops.io

    return set(skops.io.get_untrusted_types(data=content))


def untrusted(types: Iterable[str], trusted: Iterable[str] = ()) -> list[str]:
    """Return which of some types nobody trusts; those of files beside a declaration as it says them, ``.module.name``.

    Examples
    --------
    >>> untrusted({"sklearn.tree._tree.Tree", "mlops_dagster_models.churn.own.Scaler", "os.system"})
    ['.own.Scaler', 'os.system']
    """
    return sorted(_BESIDE.sub("", one) for one in {*types} - {*TRUSTED, *trusted})


def stored(model: Any, trusted: Sequence[str]) -> tuple[bytes, set[str]]:
    """Return a model in the skops format, and its types that skops doesn't know; refuse one that couldn't be opened.

    Raises
    ------
    ParameterError
        If it holds types that aren't trusted; the message lists them.
    MlopsError
        If skops can't store it at all.
    """
    import skops.io

    try:
        content = skops.io.dumps(model)
    except Exception as error:
        raise MlopsError(
            f"{type(model).__name__} can't be stored: {type(error).__name__}: {str(error).rstrip('.')}. Use another "
            "estimator, or leave that part out."
        ) from error
    types = types_in(content)
    if strange := untrusted(types, trusted):
        cure = f"{type(model).__name__} holds {', '.join(strange)}; if you trust them, add them to estimator.trusted."
        raise refuse("estimator.trusted", list(trusted), cure)
    if trusted:  # of these nobody else has tried whether they come back
        skops.io.loads(content, trusted=sorted(types))
    return content, types
