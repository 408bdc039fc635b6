"""Examples that need what does not ship with Locum: skipped, with the reason, where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.models.factory import find_factory

ROOT = Path(__file__).parent.parent
FIGHTS = ROOT.parent / "shared" / "data" / "models" / "rwf2000-flow-gated.keras.h5"


@pytest.mark.data
def test_the_flow_gated_network_is_read_whole() -> None:
    pytest.importorskip("h5py", reason="h5py is not installed")
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    if not FIGHTS.exists():
        pytest.skip(f"{FIGHTS} is not there")
    model = find_factory(str(ROOT / "examples" / "flow_gated.py") + ":build").build({"path": str(FIGHTS)})
    assert sum(p.numel() for p in model.parameters()) == 272_690
    clip = torch.randint(0, 256, (1, 3, 64, 224, 224), generator=torch.Generator().manual_seed(0)).float()
    with torch.inference_mode():
        logits = model(clip)
    assert logits.shape == (1, 2) and bool(torch.isfinite(logits).all())
