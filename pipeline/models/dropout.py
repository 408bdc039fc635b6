"""MC dropout: dropout stays active in a model that is otherwise evaluated (arXiv 1506.02142).

Active are torch's dropout modules and the attention dropout of ``nn.MultiheadAttention``. Batch norm keeps
its running statistics. Does not know stochastic depth, nor dropout that a model calls as a function.
"""

from __future__ import annotations

import hashlib

from torch import nn

_DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def activate_dropout(model: nn.Module) -> int:
    """Put the dropout of ``model`` into training mode, and nothing else; returns how many modules drop."""
    active = 0
    for module in model.modules():
        if (isinstance(module, _DROPOUT) and module.p > 0) or (
            isinstance(module, nn.MultiheadAttention) and module.dropout > 0
        ):
            module.training = True
            active += 1
        elif isinstance(module, nn.TransformerEncoder | nn.TransformerEncoderLayer):
            module.training = True  # its fused path for evaluation passes over the dropout inside
    return active


def derived_seed(*parts: int) -> int:
    """A seed in [0, 2**63) that depends on all of ``parts`` and on their order."""
    digest = hashlib.blake2b(",".join(str(p) for p in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
