"""A trained student at work, from the torch.export file that was written with it: it needs none of the student's code.

Shapes: N clips, T frames, H height, W width, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.models.factory import find_factory
from pipeline.models.foreign import foreign_code
from pipeline.models.teacher import pick_device
from pipeline.models.weights import fetch
from schemas.arrays import Float32
from schemas.errors import ModelError


class ExportedStudent:
    """Holds the student of a file on a device.

    Raises
    ------
    ModelError
        If there is no such file, it is another, or it cannot be loaded.
    """

    def __init__(
        self, url: str, sha256: str, *, device: str = "auto", num_threads: int | None = None
    ) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.device = pick_device(device)
        self._url = url
        fetch(url, sha256)
        self._module = find_factory(url, device=str(self.device)).build({})

    def __call__(self, frames_NTHWC: NDArray[np.uint8]) -> tuple[Float32, Float32]:
        """Logits (N, K), and confidences (N, 2): that the student is right, and that the teacher is.

        Raises
        ------
        ModelError
            If it does not take the frames, or says what is no number.
        """
        frames = torch.from_numpy(frames_NTHWC).to(self.device)
        doing = f"the student {self._url!r} failed on frames {tuple(frames.shape)}"
        with torch.inference_mode(), foreign_code(doing, "are these the frames it learnt from?"):
            logits_NK, confidences_N2 = self._module(frames)
        said = logits_NK.float().cpu().numpy(), confidences_N2.float().cpu().numpy()
        if not all(np.isfinite(x).all() for x in said):
            raise ModelError(f"the student {self._url!r} gave what is no number")
        return said
