"""Where the rows come from: the table that comes with scikit-learn."""

from sklearn.datasets import load_breast_cancer


def load():
    """Return one row per tumour; 1 is benign."""
    table = load_breast_cancer(as_frame=True).frame
    table.columns = [column.replace(" ", "_") for column in table.columns]
    return table.rename(columns={"target": "benign"}).reset_index(names="tumour")
