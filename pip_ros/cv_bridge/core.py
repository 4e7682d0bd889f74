"""
Stand-in for ``CvBridge`` of ``cv_bridge``: ROS image messages <-> NumPy arrays.

Only installed where the real package is missing.
"""

import array
import sys

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from . import encodings


class CvBridgeError(TypeError):
    """A message or an image cannot be converted; says why."""


def _message_bytes(data):
    """Return a message's data as (N,) uint8, sharing memory with arrays and bytes."""
    return np.asarray(data, np.uint8) if isinstance(data, list) else np.frombuffer(data, np.uint8)


def _byte_array(image):
    """Return the pixels of an image, row by row, as the array.array that rclpy takes as it is."""
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(image).reshape(-1).view(np.uint8))
    return data


def _require_image(image):
    """Raise TypeError unless ``image`` is a NumPy array of (H, W) or (H, W, C)."""
    if not isinstance(image, (np.ndarray, np.generic)):
        raise TypeError(f'expected a NumPy array, got {type(image).__name__}')
    if image.ndim not in (2, 3):
        raise CvBridgeError(f'expected an image of 2 or 3 dimensions, got {image.ndim}')


class CvBridge:
    """
    Converts between sensor_msgs Image or CompressedImage and NumPy arrays as OpenCV uses them.

    Arrays are (H, W) for one channel and (H, W, C) for several, in native byte order.
    """

    def __init__(self):
        depths = encodings.DEPTH_TO_DTYPE
        self.cvdepth_to_numpy_depth = {
            getattr(cv2, f'CV_{depth}'): dtype for depth, dtype in depths.items()}
        self.cvtype_to_name = {
            encodings.getCvType(name): name
            for name in (f'{depth}C{channels}' for depth in depths for channels in (1, 2, 3, 4))}
        # Both ways in one table, as in the original.
        self.numpy_type_to_cvtype = {dtype: depth for depth, dtype in depths.items()} | depths

    def dtype_with_channels_to_cvtype2(self, dtype, n_channels):
        """Return the encoding of pixels of a NumPy dtype: (uint8, 3) -> '8UC3'."""
        try:
            return f'{self.numpy_type_to_cvtype[dtype.name]}C{n_channels}'
        except KeyError:
            raise CvBridgeError(f'OpenCV has no pixels of type {dtype.name}') from None

    def cvtype2_to_dtype_with_channels(self, cvtype):
        """Return (name of the NumPy type, channels) of an OpenCV type number."""
        depth, channels = encodings.split_cv_type(cvtype)
        return self.cvdepth_to_numpy_depth[depth], channels

    def encoding_to_cvtype2(self, encoding):
        """Return the OpenCV type number of an encoding: 'bgr8' -> ``cv2.CV_8UC3``."""
        try:
            return encodings.getCvType(encoding)
        except RuntimeError as error:
            raise CvBridgeError(error) from error

    def encoding_to_dtype_with_channels(self, encoding):
        """Return (name of the NumPy type, channels) of an encoding: 'bgr8' -> ('uint8', 3)."""
        return self.cvtype2_to_dtype_with_channels(self.encoding_to_cvtype2(encoding))

    def _convert(self, image, encoding_in, encoding_out):
        """Convert between encodings; every failure is a CvBridgeError."""
        try:
            return encodings.cvtColor2(image, encoding_in, encoding_out)
        except (RuntimeError, cv2.error) as error:
            raise CvBridgeError(error) from error

    def imgmsg_to_cv2(self, img_msg, desired_encoding='passthrough'):
        """
        Return the image of a sensor_msgs/Image.

        'passthrough' keeps the encoding and, if rows are not padded and the byte order is this
        machine's, shares memory with the message. Any other encoding gives a new array.
        """
        name, channels = self.encoding_to_dtype_with_channels(img_msg.encoding)
        byte_order = '>' if img_msg.is_bigendian else '<'
        dtype = np.dtype(name).newbyteorder(byte_order)
        height, width, step = img_msg.height, img_msg.width, img_msg.step
        pixel = channels * dtype.itemsize
        data = _message_bytes(img_msg.data)
        if step < width * pixel:
            raise CvBridgeError(
                f'step is {step} bytes, a row of {width} pixels [{img_msg.encoding}] takes '
                f'{width * pixel}')
        if data.size < height * step:
            raise CvBridgeError(
                f'data are {data.size} bytes, {height} rows of {step} take {height * step}')
        # Strides instead of shapes: the padding need not be a whole number of pixels.
        image = np.ndarray(
            (height, width, channels), dtype, data, strides=(step, pixel, dtype.itemsize))
        if channels == 1:
            image = image[:, :, 0]
        image = np.ascontiguousarray(image, dtype.newbyteorder('='))
        if desired_encoding == 'passthrough':
            return image
        return self._convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(self, cvim, encoding='passthrough', header=None):
        """
        Return the sensor_msgs/Image of an image.

        ``encoding`` names what is in the array and has to fit its type; nothing is converted.
        'passthrough' takes the name from the type: uint8 (H, W, 3) is '8UC3'.
        """
        _require_image(cvim)
        height, width = cvim.shape[:2]
        channels = cvim.shape[2] if cvim.ndim == 3 else 1
        cv_type = self.dtype_with_channels_to_cvtype2(cvim.dtype, channels)
        if encoding == 'passthrough':
            encoding = cv_type
        elif self.encoding_to_cvtype2(encoding) != self.encoding_to_cvtype2(cv_type):
            raise CvBridgeError(f'an image of type {cv_type} cannot be [{encoding}]')
        message = Image(height=height, width=width, encoding=encoding)
        if header is not None:
            message.header = header
        order = cvim.dtype.byteorder
        message.is_bigendian = int(order == '>' or (order == '=' and sys.byteorder == 'big'))
        message.step = width * channels * cvim.dtype.itemsize
        message.data = _byte_array(cvim)
        return message

    def compressed_imgmsg_to_cv2(self, cmprs_img_msg, desired_encoding='passthrough'):
        """
        Return the image of a sensor_msgs/CompressedImage, as the file has it or converted.

        Colour files come out as OpenCV reads them, blue first.
        """
        try:
            image = cv2.imdecode(_message_bytes(cmprs_img_msg.data), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:  # no data at all
            raise CvBridgeError(error) from error
        if image is None:
            raise CvBridgeError(f'cannot decode the image of format [{cmprs_img_msg.format}]')
        if desired_encoding == 'passthrough':
            return image
        channels = image.shape[2] if image.ndim == 3 else 1
        bits = image.dtype.itemsize * 8
        layout = {1: 'mono', 3: 'bgr', 4: 'bgra'}[channels]
        return self._convert(image, f'{layout}{bits}', desired_encoding)

    def cv2_to_compressed_imgmsg(self, cvim, dst_format='jpg'):
        """Return a sensor_msgs/CompressedImage; ``dst_format`` is a file extension, as 'png'."""
        _require_image(cvim)
        try:
            done, encoded = cv2.imencode(f'.{dst_format}', cvim)
        except cv2.error as error:
            raise CvBridgeError(error) from error
        if not done:
            raise CvBridgeError(f'OpenCV cannot encode {cvim.dtype} {cvim.shape} as {dst_format}')
        return CompressedImage(format=dst_format, data=_byte_array(encoded))
