"""Unlearning methods: one file each, one literal registry."""

from oneshui.methods.metaunlearn import MetaUnlearn
from oneshui.methods.ssd import SSD

#: kind in the config -> frozen dataclass of hyper-parameters
METHODS: dict[str, type[MetaUnlearn] | type[SSD]] = {
    "metaunlearn": MetaUnlearn,
    "ssd": SSD,
}
