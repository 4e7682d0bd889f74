"""Images from files and compressed messages: EXIF orientation, and sizes that are only claimed."""

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from grasp_stn_ros import compressed
from grasp_stn_ros.image_files import is_turned, read_frame, read_rgb
from grasp_stn_ros.reasons import GraspError, Reason


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


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Return the JPEG with another size in its frame header."""
    start = data.index(b'\xff\xc0') + 5
    return data[:start] + struct.pack('>HH', height, width) + data[start + 4:]


@pytest.mark.parametrize('front', [
    b'', b'\xff\xe0\x00\x04ab',
    # What looks like a frame header inside a comment, and what decoders skip between segments.
    b'\xff\xfe\x00\x0e\xff\xc0\x00\x11\x08\x00\x01\x00\x01\x03ab',
    b'\xff\xfe\x00\x02junk\xff\x00\xff\xff\xff\x01'])
def test_a_jpeg_that_claims_to_be_huge_is_not_decoded(pixels, front):
    honest, huge = (data[:2] + front + data[2:] for data in (
        jpeg(pixels), with_size(jpeg(pixels), 12000, 12000)))
    assert compressed.rgb_from_compressed(message(honest)).shape == (48, 64, 3)
    with pytest.raises(GraspError, match='claims 12000x12000 pixels') as caught:
        compressed.rgb_from_compressed(message(huge))
    assert caught.value.reason == Reason.INVALID_IMAGE


def test_progressive_jpegs_and_pngs_say_their_size(pixels):
    progressive = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert b'\xff\xc2' in progressive
    for data in (progressive, cv2.imencode('.png', pixels)[1].tobytes()):
        assert compressed.rgb_from_compressed(message(data)).shape == (48, 64, 3)


@pytest.mark.parametrize('ending', ['.bmp', '.tiff', '.webp', '.pgm'])
def test_formats_whose_size_is_not_looked_at_are_refused(pixels, ending):
    data = cv2.imencode(ending, pixels if ending != '.pgm' else pixels[..., 0])[1].tobytes()
    with pytest.raises(GraspError, match='neither a JPEG nor a PNG'):
        compressed.rgb_from_compressed(message(data, ending))


def test_a_jpeg_that_breaks_off_or_is_noise_is_named(pixels):
    data = jpeg(pixels)
    rng = np.random.default_rng(0)
    for cut in (0, 1, 2, 3, 20, data.index(b'\xff\xc0') + 6):
        with pytest.raises(GraspError, match='neither a JPEG nor a PNG'):
            compressed.rgb_from_compressed(message(data[:cut]))
    for _ in range(200):
        noise = b'\xff\xd8' + rng.integers(0, 256, rng.integers(300), np.uint8).tobytes()
        with pytest.raises(GraspError):
            compressed.rgb_from_compressed(message(noise))
