"""What the catalog shows of assets: links to code, tags."""

from mlops_dagster import catalog
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.declared import model_definitions
from mlops_dagster.spec.project import find_model
from mlops_dagster_tests.contracts.stock import OWN

STOCK = OfModel(find_model("stock_price", OWN))
ASSETS = model_definitions(STOCK.declaration).assets


def links_of(step):
    (asset,) = catalog.with_code_and_tags([one for one in ASSETS if one.key == STOCK.key(step)], STOCK)
    return next(iter(asset.specs)).metadata["dagster/code_references"].code_references


def test_every_asset_links_to_its_model_and_its_step(monkeypatch):
    monkeypatch.setattr(catalog, "code_url", lambda: None)
    *own, link = links_of("predictions")
    assert {"stock_price: defs.yaml", "stock_price: features.py"} <= {one.label for one in own}
    assert link.label == "its step: steps/predict.py"
    lines = catalog.PACKAGE.joinpath(link.label.split(": ")[1]).read_text().splitlines()
    below = lines[link.line_number - 1 : link.line_number + 12]
    assert any(line.startswith("def predictions(") for line in below)


def test_links_lead_to_where_the_code_was_pushed(monkeypatch):
    monkeypatch.setattr(catalog, "code_url", lambda: "https://github.com/me/it/blob/abc/mlops_dagster")
    *_, link = links_of("trained_model")
    assert link.url.startswith("https://github.com/me/it/blob/abc/mlops_dagster/steps/train.py#L")


def test_assets_can_be_filtered_by_their_pipelines():
    specs = {spec.key: spec for asset in ASSETS for spec in asset.specs}
    for pipeline in STOCK.pipelines:
        tagged = {key for key, spec in specs.items() if pipeline.name in spec.tags}
        assert tagged == {STOCK.key(step.name) for step in pipeline.steps} - {STOCK.key("data")}
