"""Images of one's own: each read right, or refused in one line before any work; the pixels compared with what was written."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import load
from bench.data.folder import load_folder, read_pictures
from bench.data.picture import read_picture
from bench.terminal.usage import UsageError

pytestmark = pytest.mark.any_torch


def noise(*shape: int, seed: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def bytes_of(*shape: int, seed: int = 0) -> np.ndarray:
    return noise(*shape, seed=seed).astype(np.uint8)


def fill(folder: Path, count: int = 20, shape: tuple[int, ...] = (5, 7)) -> None:
    """So many ordinary images with names that sort last."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(bytes_of(*shape, seed=100 + index)).save(folder / f"z{index:02d}.png")


def read(path: Path) -> np.ndarray:
    return read_picture(path, path.name).pixels


# ---------------------------------------------------------------- read right


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_become_the_nearest_of_256_levels(tmp_path: Path, ending: str) -> None:
    values = noise(9, 11, high=65536).astype(np.uint16)
    values[0, :6] = [0, 128, 129, 65535 - 129, 65535 - 128, 65535]  # 257 k ± 128 belongs to k
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    expected = np.round(values.astype(np.float64) * 255 / 65535).astype(np.uint8)
    assert np.array_equal(read(tmp_path / f"a.{ending}"), expected)


def test_what_was_done_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    Image.fromarray(noise(5, 7, high=65536).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(bytes_of(5, 7, 3)).save(tmp_path / "colour.png")
    data = load_folder(tmp_path)
    assert "16-bit values rounded to 8 bits (1 of 22 images)" in data.provenance
    assert "grey made RGB, as others have colour (21 of 22 images)" in data.provenance
    assert data.shape == (3, 5, 7)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_an_orientation_is_obeyed_in_every_format(tmp_path: Path, ending: str, tag: int) -> None:
    """The eight orientations by their definition (EXIF 2.3, 4.6.4 A): which side row 0 and column 0 are on."""
    stored = np.kron(bytes_of(2, 3, seed=tag), np.ones((16, 16), np.uint8))
    shown = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T,
             6: stored[::-1].T, 7: stored[::-1, ::-1].T, 8: stored.T[::-1]}[tag]  # fmt: skip
    image = Image.fromarray(stored)
    if ending == "webp":
        image = image.convert("RGB")
    exif = image.getexif()
    exif[0x0112] = tag
    options = {"lossless": True} if ending == "webp" else {"quality": 95} if ending == "jpg" else {}
    image.save(tmp_path / f"a.{ending}", exif=exif, **options)
    found = read(tmp_path / f"a.{ending}").astype(int)
    found = found[..., 0] if found.ndim == 3 else found
    assert found.shape == shown.shape
    assert np.abs(found - shown.astype(int)).max() <= (8 if ending == "jpg" else 0)


def test_grey_palettes_stay_grey_and_colours_stay_colours(tmp_path: Path) -> None:
    grey = bytes_of(5, 7)
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as stored:
        assert stored.mode == "P"
    assert np.array_equal(read(tmp_path / "grey.png"), grey)
    colour = Image.fromarray(bytes_of(5, 7, 3)).quantize(16)
    colour.save(tmp_path / "colour.gif")
    assert np.array_equal(read(tmp_path / "colour.gif"), np.asarray(colour.convert("RGB")))


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path: Path) -> None:
    colour = bytes_of(5, 7, 3)
    rgba = np.dstack([colour, np.full((5, 7), 255, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), colour)
    rgba[2, 3, 3] = 254
    Image.fromarray(rgba).save(tmp_path / "b.png")
    with pytest.raises(UsageError, match=r"b\.png has transparent pixels.*flatten"):
        read(tmp_path / "b.png")
    grey = np.dstack([colour[..., 0], np.full((5, 7), 255, np.uint8)])
    Image.fromarray(grey, mode="LA").save(tmp_path / "c.png")
    assert np.array_equal(read(tmp_path / "c.png"), colour[..., 0])
    Image.fromarray(colour).save(tmp_path / "d.png", transparency=tuple(map(int, colour[0, 0])))
    with pytest.raises(UsageError, match=r"d\.png has transparent pixels"):
        read(tmp_path / "d.png")


def test_bilevel_images_are_black_and_white(tmp_path: Path) -> None:
    bits = noise(5, 9, high=2).astype(bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), 255 * bits.astype(np.uint8))


# ---------------------------------------------------------------- refused in one line


def animation(path: Path) -> None:
    frames = [Image.fromarray(bytes_of(5, 7, seed=k)) for k in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def sixteen_bit_rgb(path: Path) -> None:
    """16 bits a channel, which Pillow does not write."""
    rows = b"".join(b"\0" + noise(7, 3, high=65536).astype(">u2").tobytes() for _ in range(5))
    write_png(path, struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0), rows)


def write_png(path: Path, header: bytes, rows: bytes) -> None:
    """A PNG chunk by chunk."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bomb(path: Path) -> None:
    """A header of 10⁵ × 10⁵ pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    write_png(path, header, bytes(10**6))


REFUSED = {
    "floating point": ("a.tif", lambda p: Image.fromarray(noise(5, 7).astype(np.float32)).save(p), "mode F"),
    "32-bit integers": ("a.tif", lambda p: Image.fromarray(noise(5, 7).astype(np.int32)).save(p), "mode I .*stated nowhere"),
    "inks": ("a.jpg", lambda p: Image.fromarray(bytes_of(5, 7, 4), mode="CMYK").save(p), "mode CMYK .*profile"),
    "LAB": ("a.tif", lambda p: Image.fromarray(bytes_of(5, 7, 3), mode="LAB").save(p), "mode LAB"),
    "animated GIF": ("a.gif", animation, "3 frames"),
    "animated WebP": ("a.webp", animation, "3 frames"),
    "animated PNG": ("a.png", animation, "3 frames"),
    "pages": ("a.tif", animation, "3 frames"),
    "16 bits in colour": ("a.png", sixteen_bit_rgb, "16 bits a channel"),
    "bomb": ("a.png", bomb, "more than [0-9,]+ pixels"),
    "text": ("a.png", lambda p: p.write_text("no picture"), "cannot be read"),
    "nothing": ("a.jpg", lambda p: p.write_bytes(b""), "cannot be read"),
    "another format's name": ("a.png", lambda p: p.write_bytes(b"GIF89a"), "cannot be read"),
    "pipe": ("a.png", lambda p: os.mkfifo(p), "not a regular file"),
    "broken link": ("a.png", lambda p: p.symlink_to(p.parent / "absent.png"), "leads nowhere"),
    "link to itself": ("a.png", lambda p: p.symlink_to(p), "leads nowhere"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_single_right_reading_is_one_line(name: str, tmp_path: Path) -> None:
    file, write, message = REFUSED[name]
    fill(tmp_path)
    write(tmp_path / file)
    with pytest.raises(UsageError, match=message) as caught:
        load(f"folder:{tmp_path}")
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "tif", "bmp", "pgm"])
def test_a_damaged_file_is_one_line_or_the_same_size(tmp_path: Path, ending: str) -> None:
    """40 damages of each format: cut short at any place, or one bit flipped; PNG's checksums find every flip of the data."""
    whole = tmp_path / f"whole.{ending}"
    Image.fromarray(bytes_of(16, 24, 3)).convert("L" if ending == "pgm" else "RGB").save(whole)
    content, expected = whole.read_bytes(), read(whole)
    rng = np.random.default_rng(7)
    refused = 0
    for trial in range(40):
        place = int(rng.integers(len(content)))
        broken = bytearray(content[:place] if trial % 2 else content)
        if trial % 2 == 0:
            broken[place] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"broken.{ending}"
        path.write_bytes(bytes(broken))
        try:
            found = read(path)
        except UsageError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert found.dtype == np.uint8
            if ending == "png":
                assert np.array_equal(found, expected)
    assert refused >= 10


def test_a_directory_with_an_images_name_is_no_image(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "folder.png").mkdir()
    assert len(read_pictures(tmp_path).images) == 20


def test_linked_folders_are_read_once_and_circles_end(tmp_path: Path) -> None:
    fill(tmp_path / "in")
    fill(tmp_path / "elsewhere", 3, (5, 7))
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    assert len(read_pictures(tmp_path / "in").images) == 23


def test_files_that_finder_leaves_are_not_images(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "._z00.png").write_bytes(b"\0\5\x16\7")
    assert len(read_pictures(tmp_path).images) == 20


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "z00.png").chmod(0)
    with pytest.raises(UsageError, match=r"z00\.png cannot be read \(.*Permission denied"):
        load(f"folder:{tmp_path}")
    (tmp_path / "z00.png").chmod(0o600)
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UsageError, match=r"closed cannot be read \(Permission denied"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("kinds", [1, 2, 19])
def test_copies_of_few_pictures_are_told_as_duplicates(tmp_path: Path, kinds: int) -> None:
    for index in range(40):
        Image.fromarray(np.full((5, 7), index % kinds, np.uint8)).save(tmp_path / f"{index}.png")
    with pytest.raises(UsageError, match=f"of which {kinds} are different .*duplicates"):
        load(f"folder:{tmp_path}")


def test_more_images_than_memory_are_told_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 4 * 20 * 5 * 7 - 1}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    with pytest.raises(UsageError, match=r"700 pixel values need 0\.0 GiB"):
        load_folder(tmp_path)
