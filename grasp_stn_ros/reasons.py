"""
Names for everything that can keep a grasp from coming out.

A reason is part of the interface: the same name appears in a log line, in ``Detection.reason``,
in the ``reason`` field of ``grasp_stn detect --json`` and as a constant of ``DetectGrasp.srv``
(a test holds the two lists together).
"""

import enum


class Reason(enum.IntEnum):
    """Why there is a grasp (``OK``) or why there is none. Values are wire format: never reuse."""

    OK = 0
    # The request or the input stream.
    TIMEOUT = 1               # no new synchronized pair arrived before the deadline
    INVALID_REQUEST = 2       # the request contradicts itself or the image
    INVALID_IMAGE = 3         # encoding, size or step of the colour image cannot be used
    INVALID_DEPTH = 4         # encoding, size or step of the depth image cannot be used
    SIZE_MISMATCH = 5         # colour, depth and camera_info disagree about the image size
    INVALID_INTRINSICS = 6    # camera_info missing, uncalibrated or not finite
    STALE_FRAME = 7           # the newest pair is older than allowed
    INTERNAL_ERROR = 8        # a defect of ours; the log has the traceback
    NOT_ACTIVE = 9            # the lifecycle node is not in the state active
    FRAME_MISMATCH = 10       # colour and depth belong to different frames
    NO_TRANSFORM = 11         # tf2 does not know the way to target_frame at the image's stamp
    OUT_OF_MEMORY = 12        # the device has no memory left for the network
    # The scene.
    NO_DEPTH = 20             # no valid depth in the whole region
    NO_CANDIDATE = 21         # no candidate reached the minimum score
    # One candidate, or all of them: depth does not allow a pose.
    DEPTH_HOLE = 30           # too few valid depth pixels between the jaws
    NO_SUPPORT_PLANE = 31     # the approach needs the support plane and none was found
    TOO_WIDE = 32             # the opening exceeds what the gripper has
    JAWS_BLOCKED = 33         # the jaws would land on something higher than the object
    TOO_FLAT = 34             # the support is too near: no finger depth left above it
    OUTSIDE_IMAGE = 35        # the rectangle's centre lies outside the depth image
    GRAZING = 36              # the approach direction is almost perpendicular to the view
    OUTSIDE_WORKSPACE = 37    # the finger tips would be outside the workspace box
    OUTSIDE_DEPTH = 38        # the surface is nearer or farther than allowed
    MASKED = 39               # the mask does not allow a grasp there
    SUPPORT_COLLISION = 40    # a finger would come too near to the support

    @property
    def sentence(self) -> str:
        """What happened and what the user can do about it, as one sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.OK: 'A grasp was found.',
    Reason.TIMEOUT: 'No synchronized colour, depth and camera_info arrived in time; check that '
                    'the camera is running and that the topics, QoS and sync slop fit it.',
    Reason.INVALID_REQUEST: 'The request cannot be served; check the timeout, the minimum score '
                            'and that the region of interest lies inside the image.',
    Reason.INVALID_IMAGE: 'The colour image cannot be used; supported encodings are rgb8, bgr8, '
                          'rgba8, bgra8 and mono8.',
    Reason.INVALID_DEPTH: 'The depth image cannot be used; supported encodings are 16UC1 '
                          '(millimetres, REP-118) and 32FC1 (metres).',
    Reason.SIZE_MISMATCH: 'Colour, depth and camera_info have different sizes; use the depth '
                          'stream that is aligned to the colour camera.',
    Reason.INVALID_INTRINSICS: 'camera_info is missing, uncalibrated (zero focal length) or not '
                               'finite; calibrate the camera or fix its driver.',
    Reason.STALE_FRAME: 'The newest image pair is too old; check the camera, the clock and '
                        'use_sim_time.',
    Reason.INTERNAL_ERROR: 'An internal error occurred; the log has the traceback, please '
                           'report it.',
    Reason.NOT_ACTIVE: 'The node is not active; configure and activate it (ros2 lifecycle set '
                       '/grasp_node configure, then activate) or start it with autostart.',
    Reason.FRAME_MISMATCH: 'Colour and depth belong to different frames; use the depth that is '
                           'aligned to colour, or set frame_mismatch to warn if they are one '
                           'camera under two names.',
    Reason.NO_TRANSFORM: 'The transform from the camera to target_frame is not known at the '
                         'stamp of the image; check that /tf and /tf_static are published, '
                         'the clocks and transform_timeout.',
    Reason.OUT_OF_MEMORY: 'The device has no memory left for the network; free some, or set '
                          'device to auto (falls back to the CPU) or cpu.',
    Reason.NO_DEPTH: 'The depth image has no valid pixel where it is needed; check the depth '
                     'range, the alignment and the lighting.',
    Reason.NO_CANDIDATE: 'No candidate reached the minimum score; the view may be empty, or '
                         'minimum_score is too high.',
    Reason.DEPTH_HOLE: 'Too few valid depth pixels lie between the jaws of the candidate; '
                       'reflective or transparent objects cause this.',
    Reason.NO_SUPPORT_PLANE: 'No support plane was found for the approach direction; choose '
                             'approach optical_axis or direction instead.',
    Reason.TOO_WIDE: 'The object is wider than the gripper opens at every candidate.',
    Reason.JAWS_BLOCKED: 'The jaws would land on something higher than the object itself.',
    Reason.TOO_FLAT: 'The object is too flat: no finger depth is left above the support.',
    Reason.OUTSIDE_IMAGE: 'The centre of the candidate lies outside the depth image.',
    Reason.GRAZING: 'The approach direction is almost perpendicular to the line of sight, so '
                    'that the rectangle says nothing about the grasp; choose another approach.',
    Reason.OUTSIDE_WORKSPACE: 'The grasp lies outside the workspace box; check '
                              'workspace.minimum, workspace.maximum and target_frame.',
    Reason.OUTSIDE_DEPTH: 'The surface is nearer than minimum_depth or farther than '
                          'maximum_depth.',
    Reason.MASKED: 'The mask allows no grasp there; check mask_topic.',
    Reason.SUPPORT_COLLISION: 'A finger would come nearer to the support than support_margin.',
}


class GraspError(Exception):
    """An error with a :class:`Reason`; ``str()`` is the sentence for the user."""

    def __init__(self, reason: Reason, detail: str = ''):
        """Keep ``reason``; ``detail`` (specific to this case) follows its sentence."""
        super().__init__(f'{reason.name}: {reason.sentence}' + (f' ({detail})' if detail else ''))
        self.reason = reason
        self.detail = detail
