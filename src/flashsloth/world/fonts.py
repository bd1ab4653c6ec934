"""The typefaces of the world: Pillow's own, matplotlib's, the system's DejaVu and Liberation, and font packages'.

In: what is installed here. Out: `faces()`, a sorted tuple of `Face`, and `font(face, size)`, a cached Pillow font.
Packages are located, never imported. With Pillow alone the world still works, with one face; the same faces give the
same pictures, so two machines agree when the same fonts are installed. Font packages from the Python Package Index
(font-roboto, font-source-sans-pro and others of their kind) are found by the entry point that they declare.
"""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

BUILT_IN = "built-in"
MATPLOTLIB_FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
    "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmss10",
)  # fmt: skip
SYSTEM_FOLDERS = (  # below /usr/share/fonts
    "truetype/dejavu", "truetype/liberation", "truetype/liberation2", "liberation", "liberation-fonts", "TTF", "dejavu",
    "dejavu-sans-fonts",
)  # fmt: skip
SYSTEM_PREFIXES = ("DejaVuSans", "DejaVuSerif", "Liberation")
PACKAGE_ENTRY_POINT = "fonts_ttf"
PACKAGE_STYLES = ("Regular", "Italic", "It", "Medium", "Bold")
UNSUITABLE = ("MathTeX", "Display", "ExtraLight")  # no plain letters, or strokes that vanish when shrunk
PROBE_SIZE = 100  # px, where a face's cap height is measured


@dataclass(frozen=True, slots=True)
class Face:
    """One typeface: its name, its file ("built-in" for Pillow's own), and cap height as a share of the font size."""

    name: str
    path: str
    cap_height: float


@lru_cache(maxsize=1)
def faces() -> tuple[Face, ...]:
    """All faces found here, sorted by name, each name once."""
    found: dict[str, str] = {}
    for file in _matplotlib_files() + _system_files() + _package_files():
        found.setdefault(file.stem, str(file))
    listed = [_measured(name, path) for name, path in sorted(found.items())]
    return (_measured(BUILT_IN, BUILT_IN), *listed)


def _matplotlib_files() -> list[Path]:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return [file for name in MATPLOTLIB_FACES if (file := folder / f"{name}.ttf").is_file()]


def _system_files() -> list[Path]:
    return [
        file
        for folder in (Path("/usr/share/fonts") / name for name in SYSTEM_FOLDERS)
        if folder.is_dir()
        for file in sorted(folder.glob("*.ttf"))
        if file.stem.startswith(SYSTEM_PREFIXES) and not any(part in file.stem for part in UNSUITABLE)
    ]


def _package_files() -> list[Path]:
    """The plain styles of every installed font package."""
    modules = {entry.module.partition(".")[0] for entry in importlib.metadata.entry_points(group=PACKAGE_ENTRY_POINT)}
    files = []
    for module in sorted(modules):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            files += sorted(Path(spec.origin).parent.glob("files/*.ttf"))
    return [file for file in files if file.stem.rpartition("-")[2] in PACKAGE_STYLES]


def _measured(name: str, path: str) -> Face:
    top, bottom = _load(path, PROBE_SIZE).getbbox("H")[1::2]
    return Face(name, path, (bottom - top) / PROBE_SIZE)


def font(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """The Pillow font of `face` at `size` pixels; the same object for the same request."""
    return _load(face.path, size)


@lru_cache(maxsize=4096)
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    if path == BUILT_IN:
        built_in = ImageFont.load_default(size)
        if not isinstance(built_in, ImageFont.FreeTypeFont):
            raise RuntimeError("this Pillow has no FreeType support: install a Pillow wheel from the package index")
        return built_in
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
