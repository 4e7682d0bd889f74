"""
Stand-in for the Python API of ROS 2's ``cv_bridge``, which PyPI does not carry for ROS 2.

It is only installed where the real package is missing, that is, where rclpy comes from wheels.
Names, call signatures and semantics are those of the original, so that code written for one runs
with the other: ``CvBridge``, ``CvBridgeError``, ``getCvType``, ``cvtColorForDisplay``. It is all
Python, there is no ``cv_bridge.boost``.

Where it differs, on purpose:

- Rows may be padded to any length; the original cuts the padding only if it is a whole number of
  pixels.
- A message whose step or data are too short is a ``CvBridgeError`` that says so.
- A compressed image that cannot be decoded is a ``CvBridgeError``; the original returns None.
- It runs on NumPy 2 and on OpenCV 4 and 5.
- ``cvtColorForDisplay`` paints labels in colours of its own.
"""

from .core import CvBridge, CvBridgeError
from .display import cvtColorForDisplay
from .encodings import getCvType

__all__ = ['CvBridge', 'CvBridgeError', 'cvtColorForDisplay', 'getCvType']

#: Tells the stand-in from the real package, which has no such name.
IS_STAND_IN = True
