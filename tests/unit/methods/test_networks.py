"""Every family of timm with every method; the slow half of it is the point of the table."""

import pandas as pd
import pytest
from tests.unit.methods.networks import MARK, NETWORKS, PAGE, TABLE, page_table, row_of

from oneshui.methods import METHODS

KNOWN = pd.read_csv(TABLE, keep_default_na=False)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_table_says_what_works(network: str) -> None:
    row = KNOWN.loc[KNOWN["network"] == network].iloc[0].to_dict()
    assert row == row_of(network)


def test_table_has_every_network_and_method_and_the_page_has_the_table() -> None:
    assert KNOWN["network"].tolist() == list(NETWORKS)
    assert KNOWN.columns.tolist() == ["network", "family", *METHODS]
    assert f"{MARK}\n{page_table(KNOWN)}\n<!-- end -->" in PAGE.read_text()
