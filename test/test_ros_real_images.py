"""Real RGB-D images through real topics, the node and the shipped weights."""


import numpy as np
from real_data import CORNELL, needs_cornell
from ros_fixtures import rig, ros, wait_until  # noqa: F401
from std_msgs.msg import Header

from grasp_stn_ros.data.cornell import CornellDataset
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.ros import conversions

pytestmark = needs_cornell


def test_cornell_images_over_real_topics(rig):  # noqa: F811
    data = CornellDataset(CORNELL)
    chosen = [i for i, present in enumerate(data.has_depth) if present][::9]
    under_test = rig(detector=GraspDetector(), mode='on_demand')
    answers = []
    for index in chosen:
        sample = data[index]
        frame = sample.frame

        def messages(old, frame=frame):
            header = Header(stamp=old['color'].header.stamp, frame_id='kinect_optical_frame')
            return {'color': conversions.image_message(frame.rgb, 'rgb8', header),
                    'depth': conversions.depth_message(frame.depth, '16UC1', header),
                    'info': conversions.camera_info_message(frame.intrinsics, frame.size,
                                                            header)}

        future = under_test.call(timeout=15.0)
        under_test.camera.stream(change=messages)
        response = under_test.answer(future)
        under_test.camera.stop()
        answers.append((sample, response))
        wait_until(lambda: not under_test.node.requests.tickets, 'the request to be over')

    on_object = 0
    for sample, response in answers:
        centres = sample.rectangles[sample.success > 0.5, :2]
        rectangle = response.grasp.rectangle
        if response.success:
            assert response.grasp.header.frame_id == 'kinect_optical_frame'
            # The pose lies on the ray of the rectangle, a finger's depth around the surface.
            position = response.grasp.pose.position
            projected = sample.frame.intrinsics.project(
                np.array([position.x, position.y, position.z]))
            assert np.hypot(*(projected - [rectangle.x, rectangle.y])) < 40
            near = np.hypot(*(centres - [rectangle.x, rectangle.y]).T).min()
            on_object += near < 50
        else:
            assert response.message
    assert on_object >= 0.5 * len(answers), f'{on_object} of {len(answers)}'
