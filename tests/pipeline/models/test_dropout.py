from __future__ import annotations

from torch import nn

from pipeline.models.dropout import activate_dropout, derived_seed


def test_only_dropout_wakes_up():
    inner = nn.Sequential(nn.AlphaDropout(0.2))
    model = nn.Sequential(nn.Dropout(0.1), nn.BatchNorm1d(3), nn.Dropout(0.0), inner).eval()
    assert activate_dropout(model) == 2
    awake = [m for m in model.modules() if m.training]
    assert awake == [model[0], model[3][0]]


def test_attention_counts_where_it_drops():
    assert activate_dropout(nn.MultiheadAttention(4, 2, dropout=0.1).eval()) == 1
    assert activate_dropout(nn.MultiheadAttention(4, 2).eval()) == 0


def test_seeds_differ_with_every_part_and_their_order():
    seeds = {derived_seed(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512
    assert all(0 <= s < 2**63 for s in seeds)
    assert derived_seed(1, 23) != derived_seed(12, 3)
    assert derived_seed(1, 2) == derived_seed(1, 2) == 6288156900839449082
