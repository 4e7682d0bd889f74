"""Images from files and compressed messages: EXIF orientation."""

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from grasp_stn_ros import compressed
from grasp_stn_ros.image_files import is_turned, read_frame, read_rgb


def jpeg(pixels, orientation=None) -> bytes:
    """Return a JPEG of ``pixels``, with an EXIF orientation from 1 to 8."""
    data = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    if orientation is None:
        return data
    # One directory of one entry: tag 0x112, a short.
    exif = b'Exif\0\0MM\0*' + struct.pack('>IHHHIHHI', 8, 1, 0x112, 3, 1, orientation, 0, 0)
    return data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]


def message(data, label='rgb8; jpeg compressed bgr8'):
    return SimpleNamespace(format=label, data=data)


@pytest.fixture
def pixels():
    """Bright on the left, dark on the right, with a bright corner below."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 200
    image[40:, 56:] = 200
    return image


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pixels_stay_where_the_sensor_had_them(tmp_path, pixels, orientation):
    rgb, depth = tmp_path / 'rgb.jpg', tmp_path / 'depth.png'
    rgb.write_bytes(jpeg(pixels, orientation))
    cv2.imwrite(str(depth), pixels[..., 0].astype(np.uint16) + 500)
    frame = read_frame(rgb, depth)
    assert (np.abs(frame.rgb[..., 0] - (frame.depth * 1000 - 500)) < 30).mean() > 0.95
    np.testing.assert_array_equal(
        compressed.rgb_from_compressed(message(rgb.read_bytes())), frame.rgb)
    assert is_turned(rgb) is (orientation != 1)


def test_a_picture_without_orientation_is_not_turned(tmp_path, pixels):
    (tmp_path / 'a.jpg').write_bytes(jpeg(pixels))
    assert not is_turned(tmp_path / 'a.jpg')
    assert read_rgb(tmp_path / 'a.jpg').shape == (48, 64, 3)
