"""What a configuration costs before it runs: without torch, in a second."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneshui.files import write_text
from oneshui.planning.plan import plan, to_text
from oneshui.planning.rates import read_rates
from oneshui.planning.sizes import Size, size_of
from oneshui.yaml_files import read_yaml


def make_plan(
    rates_path: Path,
    published_path: Path,
    output_text: Path,
    output_csv: Path,
    *,
    config: Mapping[str, Any],
    counted: Mapping[str, tuple[int, int]],
) -> None:
    """Write what the target ``tables`` costs from nothing.

    Args:
        rates_path: CSV of rates (``oneshui.planning.rates.Rate``).
        published_path: resources/datasets.yaml.
        output_text: page to read.
        output_csv: the same numbers, one row per rule.
        config: the whole configuration.
        counted: (images, identities) of the datasets that are indexed; the others count as rendered or published.

    Raises:
        ConfigError: nobody has counted a dataset, or no machine has all rates that are needed.
        DataError: the rates cannot be read.
    """
    published = read_yaml(published_path)
    datasets = {block["dataset"] for table in config["tables"].values() for block in table["blocks"]}
    counts = {
        name: Size(*counted[name]) if name in counted else size_of(name, config["datasets"][name], published)
        for name in sorted(datasets)
    }
    table = plan(config, read_rates(rates_path), counts=counts)
    write_text(output_csv, table.to_csv(index=False))
    write_text(output_text, to_text(table))
