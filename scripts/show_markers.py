"""
Show what grasp_node sends to RViz, as Rerun draws it: to look at markers where there is no RViz.

    python scripts/show_markers.py FILE.rrd
    python scripts/show_markers.py - FILE.png

The markers of one simulated scene go through MarkerBuilder and back from the messages, with
nothing else: what is wrong with them is wrong in the picture as well. Needs ROS, rerun-sdk, and a
Chromium for the PNG.
"""

from pathlib import Path
import sys

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.drawing import point_cloud
from grasp_stn_ros.ros.markers import MarkerBuilder
from grasp_stn_ros.simulation.labels import open_scene
from grasp_stn_ros.viewing.browser import take_picture
from grasp_stn_ros.viewing.scene import Scene, Shown, eye
from grasp_stn_ros.viewing.server import Page, save_to


def archetype(marker: Marker):
    """One marker -> what Rerun draws for it."""
    p, q, s, c = marker.pose.position, marker.pose.orientation, marker.scale, marker.color
    centre = [p.x, p.y, p.z]
    colour = [round(255 * v) for v in (c.r, c.g, c.b, c.a)]
    points = [[v.x, v.y, v.z] for v in marker.points]
    if marker.type == Marker.CUBE:
        return rr.Boxes3D(centers=[centre], half_sizes=[[s.x / 2, s.y / 2, s.z / 2]],
                          quaternions=[rr.Quaternion(xyzw=[q.x, q.y, q.z, q.w])], colors=colour,
                          fill_mode='solid' if c.a > 0.5 else 'densewireframe', radii=0.0003)
    if marker.type == Marker.SPHERE:
        return rr.Points3D([centre], radii=s.x / 2, colors=colour)
    if marker.type == Marker.TEXT_VIEW_FACING:
        return rr.Points3D([centre], radii=0.0005, colors=colour, labels=[marker.text],
                           show_labels=True)
    if marker.type == Marker.ARROW:
        start, end = np.array(points)
        return rr.Arrows3D(origins=[start], vectors=[end - start], radii=s.x / 2, colors=colour)
    if marker.type == Marker.LINE_LIST:
        return rr.LineStrips3D(np.reshape(points, (-1, 2, 3)), radii=s.x / 2, colors=colour)
    raise ValueError(f'marker type {marker.type}')


def main() -> None:
    """Write the recording, and the picture if it is asked for."""
    scene = open_scene(7, 1, objects=2)
    frame = scene.frame
    scene.close()
    detector = GraspDetector()
    shown = Shown('markers', frame, detector.detect(frame))
    header = Header(frame_id='camera')
    array = MarkerBuilder(detector.gripper).build(shown.detection, frame, header, 0.0)
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    viewer = Scene()
    page = Page(viewer) if picture else None
    if page is None:
        save_to(viewer, Path(sys.argv[1]))
    recording = viewer.recording
    recording.set_time('frame', sequence=0)
    points, colours = point_cloud(frame)
    recording.log('space/cloud', rr.Points3D(points, colors=colours, radii=0.0012))
    for marker in array.markers:
        recording.log(f'space/{marker.ns}/{marker.id}', archetype(marker))
    recording.send_blueprint(rrb.Blueprint(
        rrb.Spatial3DView(origin='space', name='markers', eye_controls=eye(shown)),
        rrb.BlueprintPanel(state='collapsed'), rrb.SelectionPanel(state='collapsed'),
        rrb.TimePanel(state='collapsed', timeline='frame', play_state='paused'),
        auto_views=False))
    recording.flush()
    if page is not None and picture is not None:
        take_picture(page.picture_address, picture, 600.0, (1000, 700))


if __name__ == '__main__':
    main()
