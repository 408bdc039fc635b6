"""What holds for every decoder that is not the default one. Each decodes in a child process of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.video.known_wrong import REFUSED
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import ClipSpan, ClipSpec, clip_spans
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec
from tests.pipeline.video.other_process import SMALL, Child
from tests.pipeline.video.test_known_wrong import REFUSED_FILES, without_first_keyframe
from tests.video_files import QUIET, RECIPES, VideoFile, constant, encode, read_number, trim

Get = Callable[[str], VideoFile]
ACCEPTED_FILES = [name for name in RECIPES if name not in REFUSED_FILES]
YUV = (120, 100, 160)


def instants(times: list[int]) -> list[ClipSpan]:
    return [ClipSpan(time, time + 1, (time,)) for time in times]


def plain(path: Path, spans: list[ClipSpan], view: ViewSpec = SMALL, **decode: str) -> list[np.ndarray]:
    spec = DecodeSpec(**decode)  # type: ignore[arg-type]
    return [clip.frames_VTHWC for clip in PyAVDecoder().decode(str(path), spans, view, spec)]


def require_numbers(decoder: Child, file: VideoFile, spans: list[ClipSpan], uri: str = "") -> None:
    memory = file.path.read_bytes() if uri else None
    clips = decoder.decode(uri or str(file.path), spans, memory=memory)
    assert [clip.span for clip in clips] == spans
    for clip in clips:
        assert clip.damage == ""
        got = [read_number(picture) for picture in clip.frames_VTHWC[0]]
        assert got == [file.number_at(time) for time in clip.span.times_us]


class BackendChecks:
    """Inherit, and say the ``decoder`` in a fixture."""

    @pytest.mark.parametrize("name", ACCEPTED_FILES)
    def test_every_frame_at_its_first_and_last_instant(self, decoder: Child, video: Get, name: str) -> None:
        file = video(name)
        starts = [time for time, _ in file.shown]
        spans = instants(sorted({*starts, *(time - 1 for time in starts[1:]), file.end_us - 1}))
        require_numbers(decoder, file, spans)

    def test_a_further_stream_is_what_it_would_be_alone(self, decoder: Child, video: Get) -> None:
        file = video("h264_faststart.mp4")
        view = ViewSpec(width=24, height=16)
        spec, more = ClipSpec(num_frames=8, seconds=1.0), ClipSpec(num_frames=3, seconds=1.0)
        both = decoder.decode(str(file.path), clip_spans(0, file.end_us, spec, [3]), also=[view])
        one = decoder.decode(str(file.path), clip_spans(0, file.end_us, spec))
        other = decoder.decode(str(file.path), clip_spans(0, file.end_us, more), view)
        assert len(both) == len(one) == len(other) > 1
        for clip, first, second in zip(both, one, other, strict=True):
            np.testing.assert_array_equal(clip.frames_VTHWC, first.frames_VTHWC)
            np.testing.assert_array_equal(clip.also[0].frames_VTHWC, second.frames_VTHWC)

    @pytest.mark.parametrize("name", ACCEPTED_FILES)
    def test_few_clips_of_a_file(self, decoder: Child, video: Get, name: str) -> None:
        file = video(name)
        for count in (1, 2, 4):
            spans = instants([file.end_us * (2 * i + 1) // (2 * count) for i in range(count)])
            require_numbers(decoder, file, spans)

    @pytest.mark.parametrize("name", ["h264_b.mp4", "vfr.mp4", "vfr_hold.mkv", "vp9.webm"])
    def test_overlapping_clips_from_a_path_and_from_memory(
        self, decoder: Child, video: Get, name: str
    ) -> None:
        file = video(name)
        spans = clip_spans(0, file.end_us, ClipSpec(num_frames=7, seconds=1.0, stride_seconds=0.3))
        assert len(spans) > 8
        require_numbers(decoder, file, spans)
        require_numbers(decoder, file, spans, f"memory://{decoder.backend}/{name}")

    def test_random_spans(self, decoder: Child, video: Get) -> None:
        rng = random.Random(1)
        for name in ("h264_b.mp4", "vfr_hold.mp4", "fragmented.mp4", "late_start.mkv"):
            file = video(name)
            for _ in range(10):
                drawn = {rng.randrange(file.end_us): rng.randint(1, 5) for _ in range(rng.randint(1, 6))}
                spans = [
                    ClipSpan(
                        start, file.end_us, tuple(sorted(rng.randrange(start, file.end_us) for _ in range(n)))
                    )
                    for start, n in sorted(drawn.items())
                ]
                require_numbers(decoder, file, spans)

    @pytest.mark.parametrize("name", REFUSED_FILES)
    def test_known_wrong_files_are_refused_at_once(self, decoder: Child, video: Get, name: str) -> None:
        file = video(name)
        decoder.decode(str(video("one_frame.mp4").path), instants([0]))  # the child is up
        began = time.monotonic()
        with pytest.raises(VideoError, match=r"known to be wrong.*--decode.backend pyav") as caught:
            decoder.decode(str(file.path), clip_spans(0, file.end_us, ClipSpec()))
        assert (caught.value.stage, caught.value.permanent, caught.value.cause) == ("open", True, REFUSED)
        assert time.monotonic() - began < 20

    def test_other_trimmed_files(self, decoder: Child, video: Get, tmp_path: Path) -> None:
        """Wherever a file was trimmed it is shown rightly or refused."""
        for first in (1, 12, 13, 24, 30):
            file = trim(video("h264_b.mp4"), tmp_path / f"{first}.mp4", first)
            try:
                require_numbers(decoder, file, instants([time for time, _ in file.shown[::5]]))
            except VideoError as error:
                assert error.cause == REFUSED
        late = without_first_keyframe(video("h264_b.mkv").path, tmp_path / "late.mkv")
        with pytest.raises(VideoError, match="does not start with a keyframe"):
            decoder.decode(str(late), instants([0]))

    def test_rotation_and_views_are_those_of_the_default_decoder(
        self, decoder: Child, tmp_path: Path
    ) -> None:
        for rotation in (90, 180, -90):
            path = tmp_path / f"{rotation}.mp4"
            encode(path, constant(3), options=QUIET, size=(160, 120), first_number=0b1011, rotation=rotation)
            for view in (
                ViewSpec(width=48, height=64),
                ViewSpec(width=40, height=40, fit="crop", crops="three", flip=True),
                ViewSpec(width=40, height=24, fit="crop"),
            ):
                (clip,) = decoder.decode(str(path), instants([0]), view)
                (expected,) = plain(path, instants([0]), view)
                assert clip.frames_VTHWC.shape == expected.shape
                assert np.abs(clip.frames_VTHWC.astype(int) - expected).mean() < 3, (rotation, view)

    @pytest.mark.parametrize("width", [48, 50, 96, 144])
    def test_narrow_pictures_are_right_or_refused(self, decoder: Child, tmp_path: Path, width: int) -> None:
        """decord takes the padding of some widths for a fourth colour, and stops."""
        file = encode(tmp_path / "narrow.mp4", constant(5), options=QUIET, size=(width, 160))
        try:
            require_numbers(decoder, file, instants([time for time, _ in file.shown]))
        except VideoError as error:
            assert error.permanent and decoder.backend == "decord"
            assert "--decode.backend pyav" in str(error)

    def test_pixel_aspect(self, decoder: Child, codecs: Path) -> None:
        """Real files with pixels of 5:4, upright and turned."""
        view = ViewSpec(width=112, height=112, fit="crop", crops="three")
        for name in ("h264.mp4", "rot90.mp4"):
            (clip,) = decoder.decode(str(codecs / name), instants([0]), view)
            (expected,) = plain(codecs / name, instants([0]), view)
            assert np.abs(clip.frames_VTHWC.astype(int) - expected).mean() < 2

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "fast_bilinear"])
    def test_the_interpolation_asked_for_is_used(
        self, decoder: Child, tmp_path: Path, interpolation: str
    ) -> None:
        path = tmp_path / "fine.mp4"
        encode(path, constant(2), options=QUIET, size=(320, 240), first_number=0b0110100110010110)
        view = ViewSpec(width=90, height=70)
        spec = DecodeSpec(backend=decoder.backend, interpolation=interpolation)  # type: ignore[arg-type]
        (clip,) = decoder.decode(str(path), instants([0]), view, spec)
        far = {
            other: float(
                np.abs(
                    clip.frames_VTHWC.astype(int) - plain(path, instants([0]), view, interpolation=other)[0]
                ).mean()
            )
            for other in ("bilinear", "bicubic", "area", "fast_bilinear")
        }
        assert far[interpolation] < min(2, min(far.values()) + 0.05), far

    @pytest.mark.data
    def test_pixels_of_real_files_are_near_those_of_the_default_decoder(
        self, decoder: Child, codecs: Path
    ) -> None:
        """Mean difference under 2 of 255; 4 for ten-bit files, whose colours are rounded at another step."""
        spans, tried = clip_spans(0, 2_000_000, ClipSpec()), 0
        for path in sorted(codecs.iterdir()):
            if path.suffix in (".json", ".mp3") or path.name == "trunc.mp4":
                continue
            try:
                clips = decoder.decode(str(path), spans, ViewSpec())
            except VideoError as error:
                assert error.cause == REFUSED
                continue
            expected = plain(path, spans, ViewSpec())
            assert len(clips) == len(expected) > 0
            for clip, frames in zip(clips, expected, strict=True):
                far = float(np.abs(clip.frames_VTHWC.astype(int) - frames).mean())
                assert far < (4 if "10bits" in path.name else 2), (path.name, far)
            tried += 1
        assert tried >= 12

    @pytest.mark.parametrize("pix_fmt", ["gray", "yuv444p", "yuv420p10le"])
    def test_other_pixel_formats(self, decoder: Child, tmp_path: Path, pix_fmt: str) -> None:
        file = encode(tmp_path / "f.mp4", constant(30), options=QUIET, pix_fmt=pix_fmt)
        require_numbers(decoder, file, instants([time for time, _ in file.shown[::3]]))

    def test_the_end_of_the_file(self, decoder: Child, video: Get) -> None:
        """The same rules as the default decoder's."""
        file = video("h264_b.mp4")
        last, end = file.shown[-1][1], file.end_us
        spans = [
            ClipSpan(end - 1000, end + 90_000, (end - 1000, end + 90_000)),
            ClipSpan(end - 500, end + 400_000, (end - 500, end + 390_000)),
            ClipSpan(end + 200_000, end + 400_000, (end + 250_000,)),
        ]
        whole, cut = decoder.decode(str(file.path), spans)
        assert (whole.damage, cut.damage) == ("", "file ends at 6.400 s")
        for clip in (whole, cut):
            assert [read_number(picture) for picture in clip.frames_VTHWC[0]] == [last, last]
        assert decoder.decode(str(file.path), spans[2:]) == []
        assert decoder.decode(str(file.path), []) == []

    @pytest.mark.parametrize("name", ["h264_faststart.mp4", "h264_b.mkv", "vp9.webm"])
    def test_damaged_files_end_in_clips_or_a_permanent_error(
        self, decoder: Child, video: Get, tmp_path: Path, name: str
    ) -> None:
        file = video(name)
        data = file.path.read_bytes()
        for seed in range(8):
            rng, bad = random.Random(seed), bytearray(data)
            if seed == 0:
                bad = bad[: int(len(bad) * 0.7)]
            for _ in range(rng.choice([1, 5, 40]) if seed else 0):
                bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            path = tmp_path / f"{seed}-{name}"
            path.write_bytes(bad)
            try:
                clips = decoder.decode(
                    str(path), clip_spans(0, file.end_us, ClipSpec(num_frames=6, seconds=0.5))
                )
            except VideoError as error:
                assert error.permanent, error
            else:
                assert all(clip.frames_VTHWC.shape == (1, 6, 32, 32, 3) for clip in clips)

    def test_what_is_no_video_and_what_is_not_there(self, decoder: Child, tmp_path: Path) -> None:
        for content in (b"", b"not a video at all\n" * 50):
            path = tmp_path / "no.mp4"
            path.write_bytes(content)
            with pytest.raises(VideoError) as caught:
                decoder.decode(str(path), instants([0]))
            assert (caught.value.stage, caught.value.permanent) == ("open", True)
        for uri in (str(tmp_path / "gone.mp4"), "memory://no/such.mp4"):
            with pytest.raises(VideoError) as caught:
                decoder.decode(uri, instants([0]))
            assert (caught.value.permanent, caught.value.cause) == (False, "FileNotFoundError")

    def test_odd_names(self, decoder: Child, video: Get, tmp_path: Path) -> None:
        data = video("one_frame.mp4").path.read_bytes()
        for name in ("concat:a.mp4", "%03d.mp4", "with space ü.mp4", "bad\udcff.mp4"):
            path = tmp_path / name
            path.write_bytes(data)
            assert len(decoder.decode(str(path), instants([0]))) == 1, name
        assert len(decoder.decode((tmp_path / "%03d.mp4").as_uri().replace("%25", "%"), instants([0]))) == 1

    @pytest.mark.parametrize(("colorspace", "color_range"), [(1, 1), (1, 2), (5, 1), (5, 2), (9, 1), (2, 1)])
    def test_declared_matrix_and_range(
        self, decoder: Child, tmp_path: Path, colorspace: int, color_range: int
    ) -> None:
        from tests.pipeline.video.test_colour import as_rgb, flat_file

        path = tmp_path / "flat.mp4"
        flat_file(path, colorspace, color_range)
        (clip,) = decoder.decode(str(path), instants([0]))
        far = clip.frames_VTHWC[0, 0].astype(float) - as_rgb(colorspace, color_range == 2)
        assert np.abs(far).max() <= 3, far[0, 0]
