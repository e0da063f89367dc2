"""oneshui: One-Shot Unlearning of Personal Identities (1-SHUI).

``pack``, ``pack_model``, ``show``, ``forget`` and ``verify`` serve requests from bundles (docs/bundles.md). They are
imported when they are first used: most of what imports this package needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oneshui.bundles.forget import forget as forget
    from oneshui.bundles.pack import pack as pack
    from oneshui.bundles.pack import pack_model as pack_model
    from oneshui.bundles.receipt import verify as verify
    from oneshui.bundles.show import show as show

__version__ = "0.1.0"

_PUBLIC = {"forget": "forget", "pack": "pack", "pack_model": "pack", "show": "show", "verify": "receipt"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'oneshui' has no attribute {name!r}")
    return getattr(importlib.import_module(f"oneshui.bundles.{_PUBLIC[name]}"), name)
