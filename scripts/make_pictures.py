"""
Draw the pictures of the documentation into docs/images, from the real network and real classes.

    MUJOCO_GL=egl .venv/bin/python scripts/make_pictures.py [stages] [gripper] [meshes] [annotate]

Without names all of them are made. `annotate` needs the Debian package chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import sys
import tempfile
from typing import Any

import cv2
import numpy as np

from grasp_stn_ros.viewing.browser import HeadlessPage

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / 'docs' / 'images'
# A scene of two objects that no training has seen.
_SEED, _INDEX, _OBJECTS = 2024, 3, 2
_HEIGHT = 420


def stages() -> None:
    """What the network sees of a simulated scene, and what each of its stages makes of it."""
    from grasp_stn_ros.detector import GraspDetector, default_weights
    from grasp_stn_ros.preprocessing import View, at_scale, preprocess
    from grasp_stn_ros.simulation.labels import open_scene
    from grasp_stn_ros.stn import checkpoint
    from grasp_stn_ros.visualization import draw_stages, write_picture
    scene = open_scene(_SEED, _INDEX, _OBJECTS)
    frame = scene.frame
    scene.close()
    assert frame is not None
    network, _ = checkpoint.load(default_weights())
    view, known = at_scale(frame, View.square(frame.size), network.config.seen_jaw)
    channels = preprocess(frame, view, known=known).channels
    detection = GraspDetector(network, threads=1).detect(frame)
    drawn = draw_stages(frame.rgb, detection, height=_HEIGHT)
    write_picture(IMAGES / 'stages.png', draw_stages(frame.rgb, detection, height=360))
    for index in range(1, 5):
        write_picture(IMAGES / f'stage_{index}.png',
                      drawn[:, index * _HEIGHT:(index + 1) * _HEIGHT])
    write_picture(IMAGES / 'network_input.jpg', _input_panels(channels))


def _input_panels(channels: np.ndarray) -> np.ndarray:
    """Seven channels (7, S, S) -> colour, height and normals side by side, uint8 RGB."""
    colour = (channels[:3].transpose(1, 2, 0) * 0.5 + 0.5) * 255
    height = (np.interp(channels[3], (-0.2, float(channels[3].max())), (0, 255))).astype(np.uint8)
    height_rgb = cv2.applyColorMap(height, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    normals = (channels[4:7].transpose(1, 2, 0) * 0.5 + 0.5) * 255
    return np.ascontiguousarray(np.hstack([
        np.clip(p, 0, 255).astype(np.uint8) for p in (colour, height_rgb, normals)]))


def gripper() -> None:
    """Where the tool centre point goes, which axis closes, and what the lengths mean."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    from grasp_stn_ros.grasp_pose import Gripper
    hand = Gripper()
    figure, (image, side, front) = plt.subplots(
        1, 3, figsize=(13, 4.2), width_ratios=(1, 1.2, 0.8))
    _draw_in_image(image)
    _draw_from_side(side, hand)
    _draw_from_front(front, hand)
    figure.tight_layout()
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / 'gripper.png', dpi=110)
    plt.close(figure)


_JAW, _OBJECT, _X, _Y, _Z = '#4a5568', '#f6c177', '#d62728', '#2ca02c', '#1f77b4'


def _measure(axes: Any, start: tuple[float, float], end: tuple[float, float], text: str,
             at: tuple[float, float], align: str = 'center') -> None:
    axes.annotate('', end, start, arrowprops={'arrowstyle': '<->', 'lw': 1, 'color': 'black'})
    axes.text(*at, text, ha=align, va='center', fontsize=8)


def _axis(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str,
          text: str, at: tuple[float, float]) -> None:
    axes.annotate('', end, start, arrowprops={'arrowstyle': '-|>', 'lw': 2.5, 'color': colour},
                  zorder=6)
    axes.text(*at, text, color=colour, fontsize=10, fontweight='bold', zorder=7)


def _draw_in_image(axes: Any) -> None:
    """Draw the rectangle in the picture: theta, opening, jaw."""
    from grasp_stn_ros.rectangle import GraspRectangle
    rectangle = GraspRectangle(100, 80, 0.5, 110, 44)
    corners = rectangle.corners
    along, across = rectangle.axes
    for first, second, width, colour in ((0, 1, 1.2, 'black'), (1, 2, 6, _JAW),
                                         (2, 3, 1.2, 'black'), (3, 0, 6, _JAW)):
        axes.plot(*corners[[first, second]].T, color=colour, lw=width, solid_capstyle='butt')
    turned = np.array([[-16, -50], [16, -50], [16, 50], [-16, 50]]) @ rectangle.axes + [100, 80]
    axes.fill(*turned.T, color=_OBJECT, zorder=0)
    centre = np.array([100, 80])
    axes.plot(*centre, 'ko', ms=4)
    axes.text(92, 92, '(x, y)', fontsize=8, ha='right')
    _axis(axes, tuple(centre), tuple(centre + 50 * along), _Y, 'y', (136, 92))
    axes.plot([100, 170], [80, 80], 'k:', lw=1)
    arc = np.linspace(0, rectangle.theta, 20)
    axes.plot(100 + 62 * np.cos(arc), 80 + 62 * np.sin(arc), 'k', lw=1)
    axes.text(166, 94, 'theta', fontsize=8)
    low = -0.5 * 110 * along + 36 * across + centre
    _measure(axes, tuple(low), tuple(low + 110 * along), 'opening (px)',
             tuple(low + 55 * along + 12 * across))
    right = 0.5 * 110 * along - 22 * across + centre + 12 * along
    _measure(axes, tuple(right), tuple(right + 44 * across), 'jaw (px)',
             tuple(right + 14 * across + 10 * along), 'left')
    axes.text(14, 162, 'the jaws (thick) close along y', fontsize=9)
    axes.set(xlim=(10, 215), ylim=(170, 0), aspect='equal', title='in the image (y points down)')
    axes.set_xlabel('x, pixels')
    axes.set_ylabel('y, pixels')


def _jaws(axes: Any, hand: Any, opening: float, base: float) -> None:
    for side in (-1, 1):
        left = side * opening / 2 - (hand.finger_thickness * 1e3 if side < 0 else 0)
        axes.add_patch(_box(left, 0, hand.finger_thickness * 1e3, base, _JAW))


def _box(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle
    return Rectangle((x, y), width, height, facecolor=colour, edgecolor='none', zorder=3)


def _draw_from_side(axes: Any, hand: Any) -> None:
    """Draw the jaws over an object, in mm: approach downwards, opening to the right."""
    opening, base, depth = 60.0, 78.0, hand.finger_depth * 1e3
    clearance = hand.support_clearance * 1e3
    axes.add_patch(_box(-90, -clearance - 4, 180, 4, '#cbd5e0'))
    axes.text(70, -clearance - 2, 'support', fontsize=8, va='center', zorder=6)
    axes.add_patch(_box(-19, -clearance, 38, depth + clearance, _OBJECT))
    _jaws(axes, hand, opening, base)
    axes.add_patch(_box(-48, base, 96, 24, '#718096'))
    axes.text(0, base + 12, 'gripper', ha='center', va='center', color='white', zorder=6)
    axes.plot([-88, 88], [depth, depth], ':', color='black', lw=1)
    axes.text(-86, depth + 4, 'surface level', fontsize=8)
    axes.plot(0, 0, 'ko', ms=6, zorder=8)
    axes.annotate('TCP = origin of the pose', (0, 0), (10, -16), fontsize=9,
                  va='center', arrowprops={'arrowstyle': '-', 'lw': 0.7}, zorder=8)
    _axis(axes, (0, base - 8), (0, 1), _X, 'x  approach', (-1, 72.5))
    _axis(axes, (0, 0), (28, 0), _Y, 'y', (19, 3.5))
    _measure(axes, (-30, 44), (30, 44), 'opening', (-15, 47))
    _measure(axes, (48, 0), (48, depth), 'finger_depth', (50, depth / 2), 'left')
    _measure(axes, (30, 66), (38, 66), 'finger_thickness', (41, 66), 'left')
    _measure(axes, (-62, 0), (-62, base + 24), 'tcp_offset', (-64, 55), 'right')
    axes.plot([-70, -48], [base + 24, base + 24], 'k', lw=0.7)
    axes.plot([-70, 0], [0, 0], 'k', lw=0.7, zorder=5)
    axes.text(-50, base + 29, 'mounting face of the gripper', fontsize=8)
    axes.annotate('support_clearance', (-34, -clearance / 2), (-90, -16), fontsize=8,
                  va='center', arrowprops={'arrowstyle': '->', 'lw': 0.7}, zorder=8)
    axes.set(xlim=(-95, 95), ylim=(-22, 115), aspect='equal',
             title='from the side (z points at you)')
    axes.set_xlabel('mm')


def _draw_from_front(axes: Any, hand: Any) -> None:
    """Draw one jaw plate, seen along the opening."""
    jaw, base, depth = hand.jaw_size * 1e3, 78.0, hand.finger_depth * 1e3
    clearance = hand.support_clearance * 1e3
    axes.add_patch(_box(-60, -clearance - 4, 120, 4, '#cbd5e0'))
    axes.add_patch(_box(-45, -clearance, 90, depth + clearance, _OBJECT))
    axes.add_patch(_box(-jaw / 2, 0, jaw, base, _JAW))
    axes.add_patch(_box(-26, base, 52, 24, '#718096'))
    axes.plot(0, 0, 'ko', ms=6, zorder=8)
    _axis(axes, (0, base - 8), (0, 1), _X, 'x', (2.5, 50))
    _axis(axes, (0, 0), (-28, 0), _Z, 'z', (-27, 3.5))
    _measure(axes, (-jaw / 2, -13), (jaw / 2, -13), 'jaw_size', (0, -18))
    axes.set(xlim=(-62, 62), ylim=(-22, 115), aspect='equal',
             title='along the opening (y points at you)')
    axes.set_xlabel('mm')


def meshes() -> None:
    """Draw a bracket, and the convex parts that the simulator collides."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection
    from scipy.spatial import ConvexHull
    import trimesh

    from grasp_stn_ros.simulation.meshes import convex_parts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'bracket.stl'
        bracket().export(path)
        mesh: Any = trimesh.load(path, force='mesh')
        parts = convex_parts(path, Path(folder) / 'cache')
    solids = [[np.asarray(mesh.triangles)], [p[ConvexHull(p).simplices] for p in parts]]
    figure = plt.figure(figsize=(9, 3.6))
    titles = ('the mesh file', f'its {len(parts)} convex parts')
    for number, (title, triangles) in enumerate(zip(titles, solids, strict=True), 1):
        axes: Any = figure.add_subplot(1, 2, number, projection='3d')
        for index, part in enumerate(triangles):
            axes.add_collection3d(Poly3DCollection(
                part * 1e3, facecolors=plt.get_cmap('tab20')(index % 20),
                edgecolors='#00000030', lw=0.3,
                shade=True))
        axes.set(xlim=(-35, 35), ylim=(-35, 35), zlim=(0, 60), title=title)
        axes.set_box_aspect((70, 70, 60))
        axes.view_init(25, -55)
    figure.tight_layout()
    figure.savefig(IMAGES / 'convex_parts.png', dpi=100)
    plt.close(figure)


def bracket() -> Any:
    """Return a U-shaped bracket, 60 mm wide, as a trimesh."""
    import trimesh
    walls = [((0.06, 0.03, 0.01), (0, 0, 0.005)), ((0.01, 0.03, 0.04), (-0.025, 0, 0.03)),
             ((0.01, 0.03, 0.04), (0.025, 0, 0.03))]
    return trimesh.util.concatenate([
        trimesh.creation.box(size, trimesh.transformations.translation_matrix(at))
        for size, at in walls])


def annotate() -> None:
    """Draw two rectangles on the page of `grasp_stn annotate` in a real browser."""
    from threading import Thread

    from grasp_stn_ros.annotation.server import AnnotationServer
    from grasp_stn_ros.annotation.store import CornellFolder, find_pictures
    from grasp_stn_ros.simulation.labels import open_scene
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(_INDEX, _INDEX + 3):
            scene = open_scene(_SEED, index, _OBJECTS)
            assert scene.frame is not None and scene.frame.depth is not None
            cv2.imwrite(str(folder / f'table_{index}_rgb.png'), scene.frame.rgb[..., ::-1])
            millimetres = np.nan_to_num(scene.frame.depth * 1e3).round().astype(np.uint16)
            cv2.imwrite(str(folder / f'table_{index}_depth.png'), millimetres)
            scene.close()
        store = CornellFolder(folder / 'labelled', find_pictures(folder))
        with AnnotationServer(store) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            with HeadlessPage(server.url, (1100, 720)) as page:
                page.wait_for('picture.width')
                for start, end, side in (((231, 139), (257, 149), (247, 138)),
                                         ((277, 286), (309, 276), (296, 290))):
                    draw_rectangle(page, start, end, side)
                page.key('s')
                page.wait_for("$('message').textContent === 'saved'")
                (IMAGES / 'annotate.png').write_bytes(page.screenshot())
            server.shutdown()


def draw_rectangle(page: HeadlessPage, start: tuple[float, float], end: tuple[float, float],
                   side: tuple[float, float]) -> None:
    """Draw on the page as a user does; image pixels: from jaw to jaw, then the jaws' height."""
    first, second, third = (page.run(
        '(() => { const b = canvas.getBoundingClientRect(); const p = onCanvas('
        f'{x}, {y}); return [b.left + p[0], b.top + p[1]]; }})()') for x, y in (start, end, side))
    page.mouse('mousePressed', first[0], first[1], pressed=True)
    page.mouse('mouseMoved', second[0], second[1], pressed=True)
    page.mouse('mouseReleased', second[0], second[1])
    page.mouse('mouseMoved', third[0], third[1])
    page.mouse('mousePressed', third[0], third[1], pressed=True)
    page.mouse('mouseReleased', third[0], third[1])


PICTURES = {'stages': stages, 'gripper': gripper, 'meshes': meshes, 'annotate': annotate}


def main() -> int:
    """Draw what was asked for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n')[0])
    parser.add_argument('names', nargs='*', choices=[*PICTURES, []], help='all, if none is named')
    for name in parser.parse_args().names or PICTURES:
        print(f'{name} ...', flush=True)
        PICTURES[name]()
    return 0


if __name__ == '__main__':
    sys.exit(main())
