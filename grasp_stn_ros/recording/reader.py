"""
Reading a recording: anybody's MCAP file with colour, depth and camera_info, with or without ours.

Whatever the file holds, what is read from it either comes out or raises :class:`RecordingError`;
of a file that breaks off, what comes before the damage is read, and :attr:`Recording.damage` says
what happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
import itertools
import json
from pathlib import Path
import struct
from typing import Any, NamedTuple
import zlib

from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, SeekingReader
from mcap.records import Schema
from mcap.summary import Summary
from mcap_ros2.decoder import DecoderFactory
from zstandard import ZstdError

from ..compressed import is_compressed
from ..detection import Detection
from ..messages import detection_from_message, frame_from_messages, stamp_nanoseconds
from ..reasons import GraspError
from ..rgbd import RgbdFrame

METADATA = 'grasp_stn_ros'
ROLES = ('color', 'depth', 'camera_info', 'stages')
_MAGIC = b'\x89MCAP0\r\n'
_RAW, _COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
_IMAGES = (_RAW, _COMPRESSED)
_CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
_STAGES = 'grasp_stn_interfaces/msg/GraspStages'
_TELLING = (*_IMAGES, _CAMERA_INFO, _STAGES)
_DEPTH_ENCODINGS = ('16UC1', '32FC1', 'mono16')
# What image_transport puts behind the name of a camera's topic.
_TRANSPORTS = ('/compressedDepth', '/compressed')
# Messages that are looked at to learn which topic is what: of the types that tell, and of all.
_SURVEYED, _PASSED = 400, 200_000
# Colour images that wait for their depth; more means that there is none.
_WAITING = 60
# Whatever a damaged file makes a parser raise.
_BROKEN = (McapError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError,
           AttributeError, RuntimeError, struct.error, zlib.error, ZstdError, MemoryError,
           OverflowError)


class RecordingError(RuntimeError):
    """A recording cannot be used; the message starts with a name and says what to do."""


class Message(NamedTuple):
    """A decoded message, with the type and the time (nanoseconds) it was recorded."""

    topic: str
    kind: str
    time: int
    content: Any


@dataclass(frozen=True)
class Moment:
    """
    One colour image with what belongs to it.

    ``frame`` is the RGB-D frame, or the reason as a sentence why there is none; ``detection`` what
    the node found then, where that was recorded; ``time`` the stamp in seconds; ``frame_id`` and
    ``depth_frame_id`` name the frames of colour and depth.
    """

    name: str
    time: float
    frame: RgbdFrame | str
    detection: Detection | None
    frame_id: str = ''
    depth_frame_id: str = ''


class Recording:
    """An MCAP file; the topics are found by themselves unless they are named."""

    def __init__(self, path: Path, topics: dict[str, str] | None = None, slop: float = 0.05):
        """
        Open ``path`` and find out which topic is what; raises :class:`RecordingError`.

        ``topics`` names some or all of :data:`ROLES`; stamps in a pair differ by at most ``slop``
        seconds.
        """
        self.path = Path(path)
        self.damage = ''
        self.parameters: dict[str, Any] = {}
        self._slop = round(slop * 1e9)
        self._check_file()
        self._summary = self._read_summary()
        self._whole = self._summary is not None
        noted = self._read_metadata()
        guessed = self._guess()
        for role, topic in (topics or {}).items():
            self._check_topic(role, topic)
        self.topics = {**guessed, **noted, **(topics or {})}
        missing = [role for role in ('color', 'depth', 'camera_info') if role not in self.topics]
        if missing:
            raise RecordingError(self._what_is_missing(missing))

    def _check_file(self) -> None:
        try:
            with open(self.path, 'rb') as file:
                magic = file.read(len(_MAGIC))
        except OSError as error:
            raise RecordingError(f'NO_FILE: {self.path}: {error.strerror}') from None
        if not magic:
            raise RecordingError(f'EMPTY_FILE: {self.path} has no content; was the recorder '
                                 'killed before it wrote anything?')
        if magic.startswith(b'SQLite'):
            raise RecordingError(f'NOT_MCAP: {self.path} is an SQLite bag; convert it with '
                                 '`ros2 bag convert`, or record with `ros2 bag record -s mcap`')
        if magic != _MAGIC:
            raise RecordingError(f'NOT_MCAP: {self.path} is no MCAP file')

    def _read_summary(self) -> Summary | None:
        """Return the index at the end of the file, None where it does not end as it should."""
        try:
            with open(self.path, 'rb') as file:
                return SeekingReader(file).get_summary()
        except _BROKEN:
            return None

    def _read_metadata(self) -> dict[str, str]:
        """What `grasp_stn record` noted: topics, and the parameters of the node."""
        if not self._whole:
            return {}
        try:
            with open(self.path, 'rb') as file:
                for record in SeekingReader(file).iter_metadata():
                    if record.name == METADATA:
                        self.parameters = dict(
                            json.loads(record.metadata.get('parameters', '{}')))
                        noted = json.loads(record.metadata.get('topics', '{}'))
                        return {k: v for k, v in noted.items() if k in ROLES}
        except _BROKEN as error:
            self.damage = f'CORRUPT_RECORDING: the notes in {self.path} are unreadable ({error!r})'
        return {}

    def _raw(self, topics: list[str] | None = None) -> Iterator[tuple[Schema, Any, Any]]:
        """Messages in the order in which they were recorded, until the end or the damage."""
        with open(self.path, 'rb') as file:
            reader = SeekingReader(file, validate_crcs=True) if self._whole else \
                NonSeekingReader(file, validate_crcs=True)
            messages = reader.iter_messages(topics, log_time_order=self._whole)
            while True:
                try:
                    schema, channel, message = next(messages)
                except StopIteration:
                    break
                except _BROKEN as error:
                    # A file without an end is told apart from one with a wrong middle.
                    name, what = ('CORRUPT_RECORDING', 'is damaged') if self._whole else \
                        ('TRUNCATED_RECORDING', 'breaks off')
                    self.damage = f'{name}: {self.path} {what}' \
                                  f' ({type(error).__name__}: {error}'.rstrip(': ') + ')'
                    return
                if schema is not None:
                    yield schema, channel, message
            if not self._whole and not self.damage:
                self.damage = f'TRUNCATED_RECORDING: {self.path} has no end; the recorder was ' \
                              'killed'

    def messages(self, topics: list[str] | None = None) -> Iterator[Message]:
        """Decoded messages of ``topics`` (all of them without); raises :class:`RecordingError`."""
        factory = DecoderFactory()
        decoders: dict[int, Callable[[bytes], Any] | None] = {}
        for schema, channel, message in self._raw(topics):
            if topics is not None and channel.topic not in topics:
                continue
            try:
                if schema.id not in decoders:
                    decoders[schema.id] = factory.decoder_for(channel.message_encoding, schema)
                decode = decoders[schema.id]
                content = decode(message.data) if decode is not None else None
            except _BROKEN as error:
                self.damage = f'CORRUPT_MESSAGE: a message on {channel.topic} of {self.path} ' \
                              f'cannot be decoded ({error!r})'
                continue
            if content is not None:
                yield Message(channel.topic, schema.name, message.log_time, content)

    def _first_ones(self) -> Iterator[Message]:
        """Yield the first message of each topic that tells; note the types of all topics."""
        self._kinds: dict[str, str] = self._listed()
        if self._whole:
            # A camera may start long after the others.
            for topic in [t for t, kind in self._kinds.items() if kind in _TELLING]:
                yield from itertools.islice(self.messages([topic]), 1)
            return
        surveyed = 0
        for message in itertools.islice(self.messages(), _PASSED):
            new = message.topic not in self._kinds
            self._kinds[message.topic] = message.kind
            if message.kind in _TELLING:
                surveyed += 1
                if new:
                    yield message
            if surveyed == _SURVEYED:
                return

    def _listed(self) -> dict[str, str]:
        """Topics that have messages and their types, where the file says it."""
        summary = self._summary
        if summary is None:
            return {}
        if summary.statistics is None:
            return {channel.topic: schema.name for schema, channel, _ in self._raw()}
        counts = summary.statistics.channel_message_counts
        return {channel.topic: summary.schemas[channel.schema_id].name
                for channel in summary.channels.values()
                if counts.get(channel.id) and channel.schema_id in summary.schemas}

    def _guess(self) -> dict[str, str]:
        """Return which topic is what, by types and encodings."""
        depth: list[str] = []
        colour: list[str] = []
        infos: list[str] = []
        stages: list[str] = []
        for message in self._first_ones():
            topic = message.topic
            if message.kind in _IMAGES:
                (depth if _is_depth(message.content) else colour).append(topic)
            elif message.kind == _CAMERA_INFO:
                infos.append(topic)
            elif message.kind == _STAGES:
                stages.append(topic)
        found: dict[str, str] = {}
        # An infrared image is grey as well; a debug image has drawings in it. Of an image that is
        # there raw and compressed, raw has lost nothing.
        colour.sort(key=lambda t: ('infra' in t or 'debug' in t, 'color' not in t and
                                   'rgb' not in t, self._kinds[t] != _RAW, t))
        depth.sort(key=lambda t: ('align' not in t, self._kinds[t] != _RAW, t))
        if colour:
            found['color'] = colour[0]
            camera = _without_transport(colour[0]).rpartition('/')[0]
            infos.sort(key=lambda t: (t.rpartition('/')[0] != camera, t))
        for role, choices in (('depth', depth), ('camera_info', infos), ('stages', stages)):
            if choices:
                found[role] = choices[0]
        return found

    def _what_is_missing(self, missing: list[str]) -> str:
        if self.damage and not self._kinds:
            return f'{self.damage}, and no message comes before that'
        videos = [t for t, kind in self._kinds.items()
                  if kind.rpartition('/')[2] in ('CompressedVideo', 'FFMPEGPacket', 'Packet')]
        names = ' and '.join(f'--{role.replace("_", "-")}' for role in missing)
        hint = f'; {", ".join(videos)}: videos are not read, record images (raw, compressed, ' \
               'compressedDepth)' if videos else ''
        return f'NO_TOPIC: nothing in {self.path} looks like {" and ".join(missing)}; name the ' \
               f'topics with {names}. It has: {self._what_is_there()}{hint}'

    def _what_is_there(self) -> str:
        return ', '.join(f'{t} ({kind})' for t, kind in sorted(self._kinds.items())) or 'nothing'

    def _check_topic(self, role: str, topic: str) -> None:
        """Raise :class:`RecordingError` where ``topic`` has no messages, or none of its role."""
        # Perhaps behind those that were surveyed.
        kind = self._kinds.get(topic) or next(
            (schema.name for schema, channel, _ in self._raw([topic]) if channel.topic == topic),
            None)
        if kind is None:
            raise RecordingError(f'NO_TOPIC: {self.path} has no message on {topic}. It has: '
                                 f'{self._what_is_there()}')
        wanted = {'camera_info': (_CAMERA_INFO,), 'stages': (_STAGES,)}.get(role, _IMAGES)
        if kind not in wanted:
            raise RecordingError(f'WRONG_TYPE: {topic} in {self.path} has messages of {kind}, '
                                 f'expected {" or ".join(wanted)} for '
                                 f'--{role.replace("_", "-")}')

    def detections(self) -> dict[int, Any]:
        """Recorded ``GraspStages`` by the stamp of their image, nanoseconds."""
        if 'stages' not in self.topics:
            return {}
        return {stamp_nanoseconds(m.content): m.content
                for m in self.messages([self.topics['stages']])}

    def frames(self) -> Iterator[Moment]:
        """Every colour image with the depth and camera_info that belong to it, in order."""
        found = self.detections()
        intrinsics = self.parameters.get('intrinsics', 'K')
        for color, depth, info in self._triples():
            stamp = stamp_nanoseconds(color)
            name = f'{self.path.name} {stamp / 1e9:.3f}'
            try:
                frame: RgbdFrame | str = frame_from_messages(color, depth, info, intrinsics)
            except GraspError as error:
                frame = str(error)
            stages, detection = found.get(stamp), None
            if stages is not None:
                camera = frame.intrinsics if isinstance(frame, RgbdFrame) else None
                try:
                    detection = detection_from_message(stages, camera)
                except GraspError as error:
                    self.damage = f'CORRUPT_MESSAGE: what was found in {name} is unreadable ' \
                                  f'({error.detail})'
            yield Moment(name, stamp / 1e9, frame, detection, color.header.frame_id,
                         depth.header.frame_id)

    def _triples(self) -> Iterator[tuple[Any, Any, Any]]:
        roles = {self.topics[role]: role for role in ('color', 'depth', 'camera_info')}
        waiting: deque[Any] = deque()
        depths: deque[Any] = deque(maxlen=_WAITING)
        info = None
        for message in self.messages(list(roles)):
            role = roles[message.topic]
            if role == 'camera_info':
                info = message.content
            else:
                (waiting if role == 'color' else depths).append(message.content)
            while waiting and info is not None:
                depth = self._partner(waiting[0], depths, len(waiting) > _WAITING)
                if depth is None:
                    break
                color = waiting.popleft()
                if depth is not False:
                    yield color, depth, info
        while waiting and info is not None:
            color = waiting.popleft()
            depth = self._partner(color, depths, True)
            if depth is not False:
                yield color, depth, info

    def _partner(self, color: Any, depths: deque[Any], last: bool) -> Any:
        """Depth image nearest in time; None while a nearer one may come, False if none will."""
        stamp = stamp_nanoseconds(color)
        nearest = min(depths, key=lambda d: abs(stamp_nanoseconds(d) - stamp), default=None)
        gap = None if nearest is None else stamp_nanoseconds(nearest) - stamp
        final = last or (gap is not None and stamp_nanoseconds(depths[-1]) >= stamp)
        if gap is not None and abs(gap) <= self._slop and (gap == 0 or final):
            return nearest
        return False if final and (last or stamp_nanoseconds(depths[-1]) > stamp + self._slop) \
            else None

    def warn(self, say: Callable[[str], None]) -> None:
        """Say what is wrong with the file, if anything."""
        if self.damage:
            say(self.damage)


def _is_depth(image: Any) -> bool:
    """Whether an image, raw or compressed, has distances in it by its encoding."""
    if is_compressed(image):
        return 'compressedDepth' in image.format or image.format.startswith(_DEPTH_ENCODINGS)
    return image.encoding in _DEPTH_ENCODINGS


def _without_transport(topic: str) -> str:
    """Return the topic of the raw image that a compressed one belongs to."""
    return next((topic.removesuffix(end) for end in _TRANSPORTS if topic.endswith(end)), topic)
