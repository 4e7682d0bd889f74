"""The command ``grasp_stn annotate``."""

from __future__ import annotations

from pathlib import Path
import webbrowser

import click

from .names import NEGATIVE, OPENINGS


@click.command()
@click.argument('folder', type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--out', type=click.Path(file_okay=False, path_type=Path),
              help='Folder for labels and copies of the labelled images, in the Cornell format. '
                   'Default: labelled/ in FOLDER; FOLDER itself, if it is in that format.')
@click.option('--intrinsics', nargs=4, type=float, metavar='FX FY CX CY',
              help='Camera matrix in pixels: elements 0, 4, 2 and 5 of K in camera_info. Without '
                   'it no poses can be computed from these images.')
@click.option('--import', 'imports', multiple=True, metavar='FILE',
              type=click.Path(exists=True, path_type=Path),
              help='Labels made elsewhere: CVAT (.xml, "for images 1.1"), labelme, COCO or Label '
                   'Studio (.json, or a folder of them). May be repeated.')
@click.option('--opening', type=click.Choice(OPENINGS), default=OPENINGS[0], show_default=True,
              help='Which edge of an imported rectangle is the opening.')
@click.option('--negative', multiple=True, metavar='LABEL',
              help=f'Imported label of grasps that do not work. Default: {", ".join(NEGATIVE)}.')
@click.option('--overwrite', is_flag=True,
              help='Let imported labels replace those that are there.')
@click.option('--page/--no-page', default=True, help='Open the page, or only import.')
@click.option('--browser/--no-browser', default=True,
              help='Show the page in a browser, or only print its address.')
@click.option('--port', type=click.IntRange(0, 65535), default=0, show_default=True,
              help='Of the page, on this machine only; 0 = a free one.')
def annotate(folder: Path, out: Path | None, intrinsics: tuple[float, ...] | None,
             imports: tuple[Path, ...], opening: str, negative: tuple[str, ...],
             overwrite: bool, page: bool, browser: bool, port: int) -> None:
    """
    Draw grasp rectangles on the images in FOLDER, in a browser.

    Colour images (PNG, JPEG) go with depth images (16-bit PNG in millimetres, float TIFF in
    metres) of the same name but for rgb, color or image against depth: 7_rgb.png and 7_depth.png,
    or rgb/7.png and depth/7.png. Train on the result with `grasp_stn train --data`.
    """
    from .annotation.formats import import_labels, read_labels
    from .annotation.store import CornellFolder, find_pictures
    from .data.camera_file import CAMERA_FILE
    from .data.sample import DataError
    from .reasons import GraspError
    from .rgbd import CameraIntrinsics
    if out is None:
        out = folder if any(folder.glob('*/pcd[0-9]*r.*')) else folder / 'labelled'
    try:
        matrix = CameraIntrinsics(*intrinsics) if intrinsics else None
        own = out.resolve() == folder.resolve()
        if own:
            out = folder
        pictures = find_pictures(folder, but=None if own else out)
        store = CornellFolder(out, pictures, matrix)
        depths = sum(p.depth is not None for p in pictures)
        click.echo(f'{len(pictures)} images, {depths} with depth; labels go to {out}')
        # Of the public Cornell images, which have no file about their camera, it is known.
        if depths and store.intrinsics is None and (not own
                                                    or (folder / CAMERA_FILE).exists()):
            click.echo('no --intrinsics: no poses can be computed from these images')
        for path in imports:
            made, problems = import_labels(
                store, read_labels(path, opening, negative or NEGATIVE), overwrite)
            for problem in problems:
                click.echo(f'  not imported: {problem}', err=True)
            click.echo(f'{path}: labels of {made} images')
    except (DataError, GraspError) as error:
        raise click.ClickException(str(error)) from None
    if page:
        _serve(store, port, browser)


def _serve(store, port: int, browser: bool) -> None:
    from .annotation.server import AnnotationServer
    try:
        server = AnnotationServer(store, port)
    except OSError as error:
        raise click.ClickException(f'port {port}: {error.strerror}; choose another --port, or 0'
                                   ) from None
    with server:
        click.echo(f'{server.url}   (Ctrl-C ends; what is saved is on the disk)')
        if browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo()
