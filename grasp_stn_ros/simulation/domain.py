"""
What simulated scenes are drawn from: objects, camera, sensor, surroundings, trials.

``BASIC`` is one camera over a nearly empty table; ``TABLETOP`` are the same scenes with labels for
the gripper as the detector uses it. ``WIDE`` is for a model that works where nobody set up
anything for it: clutter, cameras of several kinds that look across the table, and what stands
around. ``FIELD`` is the same for the gripper as the detector uses it, with more of the objects
that look as if they could be lifted, and slip. ``LARGE`` has more of those that have to be held
near the middle of their mass, and larger ones. Scenes of a domain follow from (seed, index) alone,
so that its numbers must not change once data sets exist; add another domain instead.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..grasp_pose import Gripper

Range = tuple[float, float]


def draw(rng: np.random.Generator, limits: Range) -> float:
    """Draw uniformly; a range of one number costs no draw."""
    low, high = limits
    return low if low == high else float(rng.uniform(low, high))


@dataclass(frozen=True)
class Domain:
    """Lengths in metres, angles in degrees, image distances in pixels."""

    name: str
    object_counts: tuple[float, ...]          # share of scenes with one, two, ... objects
    gripper: Gripper                          # that labels are tried out with
    spread: float = 0.08                      # objects are dropped within +- this
    focal_length: Range = (525.0, 525.0)      # pixels, at 640x480
    height: Range = (0.6, 1.1)                # of the camera above the table
    tilt: Range = (0.0, 20.0)                 # of the camera, from straight down
    tilt_with_scenery: Range = (8.0, 30.0)    # where an edge or a wall may come into view
    edge: Range = (0.0, 0.17)                 # interval of [0, 1) drawn for a table edge in view
    wall: Range = (0.12, 0.29)                # and for a back wall; both where they overlap
    surroundings: float = 0.0                 # share of scenes with boxes out of reach
    surrounding_boxes: int = 0                # at most
    sensors: tuple[str, ...] = ('structured_light',)
    misregistration: float = 0.0              # largest shift of depth against colour
    candidates: int = 20                      # tried out in each image, at least
    candidates_per_object: int = 0            # and so many for each object
    trials: int = 2                           # of each candidate, each with another friction
    more_trials: int = 2                      # where the first ones disagree
    views: int = 1                            # images of each scene, by as many cameras
    sleep_tolerance: float = 0.0              # m/s; in trials, what moves less is not computed
    emphasis: tuple[str, ...] = ()            # families of which there are more than of others,
    emphasized: float = 0.0                   # this share of the objects; the rest is of any
    scale: Range = (1.0, 1.0)                 # of the objects

    def to_dict(self) -> dict[str, Any]:
        """JSON-serializable; what makes two domains different."""
        values = asdict(self)
        if not self.emphasis:  # as domains were written down before there was one
            del values['emphasis'], values['emphasized']
        if self.scale == (1.0, 1.0):  # the same
            del values['scale']
        return values

    def draw_family(self, rng: np.random.Generator) -> str | None:
        """Draw the family of the next object, None for any."""
        if not self.emphasis or rng.random() >= self.emphasized:
            return None
        return self.emphasis[rng.integers(len(self.emphasis))]


BASIC = Domain(
    'basic', (0.85, 0.1, 0.05),
    # Labels are tried out with the tips less deep than detected grasps are executed with (the
    # defaults of Gripper): what lifts under the harder condition is a good grasp under both.
    Gripper(finger_depth=0.022, support_clearance=0.004))

WIDE = Domain(
    'wide', (0.5, 0.14, 0.12, 0.1, 0.08, 0.06), Gripper(finger_depth=0.032), spread=0.1,
    focal_length=(380.0, 640.0), height=(0.45, 1.2), tilt=(0.0, 25.0),
    tilt_with_scenery=(8.0, 35.0), edge=(0.0, 0.25), wall=(0.18, 0.42), surroundings=0.35,
    surrounding_boxes=4, sensors=('structured_light', 'stereo', 'time_of_flight'),
    misregistration=3.0, candidates_per_object=7, trials=2, more_trials=4, views=4,
    sleep_tolerance=1e-3)

# The scenes of BASIC, labelled by the grasps that the detector executes. BASIC itself counts every
# grasp as failed that needs more than 22 mm of the fingers.
TABLETOP = replace(BASIC, name='tabletop', gripper=Gripper(finger_depth=0.040), more_trials=4)

# Most of the surest grasps that failed held these: flanks that converge, rims, and bodies that
# are nearly as wide as the gripper opens.
FIELD = replace(WIDE, name='field', gripper=Gripper(finger_depth=0.040), views=8,
                emphasis=('wedge', 'bowl', 'ring', 'superquadric'), emphasized=0.25)

# Most of the surest grasps of household objects that failed held a large one by a light end.
LARGE = replace(FIELD, name='large', object_counts=(0.7, 0.2, 0.1), scale=(1.1, 1.9),
                emphasis=('hammer', 'blob', 'paddle', 'bottle', 'dumbbell', 'mug'), emphasized=0.8)

# What of a domain is about trials, and changes no picture.
OF_TRIALS = ('name', 'gripper', 'candidates', 'candidates_per_object', 'trials', 'more_trials',
             'sleep_tolerance')

DOMAINS = {domain.name: domain for domain in (BASIC, WIDE, TABLETOP, FIELD, LARGE)}
