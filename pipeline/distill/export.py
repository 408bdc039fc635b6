"""The student as a torch.export file, which runs with torch alone.

program = torch.export.load("student.pt2").module()
logits, confidences = program(frames)  # uint8 (N, T, H, W, 3), any N
"""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.models.distilled import Student
from schemas.errors import ModelError

TOLERANCE = 1e-3
_BATCHES = (1, 2, 5)


def export_student(student: Student, shape_THW: tuple[int, int, int], path: Path) -> float:
    """Write the student, as it runs on the CPU, to ``path``. The largest difference of an output between both.

    Raises
    ------
    ModelError
        If it cannot be exported, or says something else when it is.
    """
    student = student.cpu().eval()
    for (
        parameter
    ) in student.parameters():  # kernels lie channels last while training; the file wants them plain
        parameter.data = parameter.data.contiguous()
    generator = torch.Generator().manual_seed(0)

    def frames(num_clips: int) -> torch.Tensor:
        return torch.randint(0, 256, (num_clips, *shape_THW, 3), dtype=torch.uint8, generator=generator)

    try:
        batch = torch.export.Dim("batch", min=1)
        with torch.no_grad():
            program = torch.export.export(student, (frames(3),), dynamic_shapes=({0: batch},))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path)
    except Exception as e:  # whatever a foreign network does in tracing
        raise ModelError(f"the student was trained but cannot be exported: {type(e).__name__}: {e}") from e
    loaded = torch.export.load(path).module()
    worst = 0.0
    with torch.no_grad():
        for num_clips in _BATCHES:
            x = frames(num_clips)
            for ours, theirs in zip(student(x), loaded(x), strict=True):
                difference = float((ours - theirs).abs().max())
                worst = difference if not difference <= worst else worst  # what is no number is the worst
    if not worst <= TOLERANCE:
        raise ModelError(f"the exported student differs from the trained one by {worst}")
    return worst
