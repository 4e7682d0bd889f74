"""Which images in a folder are colour, which are depth, and which of them belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import re

COLOUR = ('.png', '.jpg', '.jpeg')
# Millimetres are 16-bit and never in a JPEG.
DEPTH = ('.png', '.tiff', '.tif')
# rgb_0001.png, 0001_rgb.png, rgb/0001.png, 0001-color.png, 0001.png: all are image 0001. Labels
# are kept under these names: another rule here would lose them.
_ROLE = re.compile(r'(?:^|[_\-.])(rgb|color|colour|image|depth)(?=$|[_\-.])', re.IGNORECASE)
# To find a partner, rgb1.png and images/1.png are image 1 as well.
_LOOSE = re.compile(r'(?:^|[_\-.]|(?<=\d))(rgb|colou?rs?|images?|depths?)(?=$|[_\-.\d])',
                    re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """A colour image; ``depth`` is None where there is none."""

    name: str
    rgb: Path
    depth: Path | None


def pair_images(folder: Path, but: Path | None = None,
                colours: tuple[str, ...] = COLOUR) -> list[Picture]:
    """
    Colour images below ``folder`` with their depth, by name; hidden files and ``but`` left out.

    Colour and depth belong together when their paths differ only in rgb, color, colour or image
    against depth. In a folder of Cornell's layout they are the files pcdNNNNr and pcdNNNNd.
    ``colours`` are the endings of colour images; several may have one name.
    """
    # However both are spelled.
    root, left_out = folder.resolve(), None if but is None else but.resolve()
    colour: list[tuple[str, Path, str]] = []
    depth: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        inside = path.relative_to(folder)
        if not path.is_file() or any(part.startswith('.') for part in inside.parts) \
                or (left_out is not None and (root / inside).is_relative_to(left_out)):
            continue
        is_depth, name, key = _role(inside)
        if is_depth and path.suffix.lower() in DEPTH:
            depth[key] = path
        elif not is_depth and path.suffix.lower() in colours:
            colour.append((name, path, key))
    return [Picture(name, path, depth.get(key)) for name, path, key in sorted(colour)]


def _role(path: Path) -> tuple[bool, str, str]:
    """Relative path -> whether it is depth, its name, and what its partner has as well."""
    cornell = re.fullmatch(r'(pcd\d{4})([rd])', path.stem)
    if cornell:
        name = str(path.with_name(cornell[1]))
        return cornell[2] == 'd', name, name
    parts = [*path.parts[:-1], path.stem]
    is_depth = any(word.lower().startswith('depth') for part in parts
                   for word in _LOOSE.findall(part))
    return is_depth, _without(_ROLE, parts), _without(_LOOSE, parts)


def _without(words: re.Pattern[str], parts: list[str]) -> str:
    """Return the path without ``words`` and the separators around them."""
    kept = (words.sub('', part).strip('_-.') if words.search(part) else part for part in parts)
    return '/'.join(part for part in kept if part) or 'image'
