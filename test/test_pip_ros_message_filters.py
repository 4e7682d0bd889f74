"""
message_filters as this project uses it: the stand-in of pip_ros/, or the real package.

Stamps are in milliseconds and chosen so that the sets can be worked out by hand.
"""
# ruff: noqa: E402 (imports after importorskip)

import inspect
import threading
import time
from types import SimpleNamespace
import uuid

import pytest

rclpy = pytest.importorskip('rclpy', reason='rclpy is missing: `make test` installs it')
message_filters = pytest.importorskip(
    'message_filters', reason='message_filters is missing: source ROS 2, or `pip install '
                              './pip_ros` where ROS comes from wheels')
from message_filters import (
    ApproximateTimeSynchronizer,
    Cache,
    SimpleFilter,
    Subscriber,
    TimeSynchronizer,
)
from rclpy.clock import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image

stand_in_only = pytest.mark.skipif(
    not getattr(message_filters, 'IS_STAND_IN', False),
    reason='the real message_filters is installed and behaves differently here, see '
           'pip_ros/message_filters')

DEADLINE = 60.0  # s; only reached when something is broken


def stamped(milliseconds):
    """Return a message with a header of that stamp."""
    stamp = Time(nanoseconds=round(milliseconds * 1_000_000)).to_msg()
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), milliseconds=milliseconds)


class Bench:
    """A synchronizer with inputs to feed by hand; collects the sets as tuples of stamps."""

    def __init__(self, synchronizer, inputs, *args, **kwargs):
        self.inputs = [SimpleFilter() for _ in range(inputs)]
        self.synchronizer = synchronizer(self.inputs, *args, **kwargs)
        self.synchronizer.registerCallback(self.collect)
        self.sets = []

    def collect(self, *messages):
        """Store the stamps of a set."""
        self.sets.append(tuple(message.milliseconds for message in messages))

    def feed(self, index, *milliseconds):
        """Feed messages of these stamps to one input; return all sets so far."""
        for stamp in milliseconds:
            self.inputs[index].signalMessage(stamped(stamp))
        return self.sets


def in_threads(function, *calls):
    """Call a function once per tuple of arguments, each in a thread; fail if one never returns."""
    threads = [threading.Thread(target=function, args=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    end = time.monotonic() + DEADLINE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), 'still blocked at the deadline'


# -- SimpleFilter ------------------------------------------------------------------------------

def test_callbacks_get_the_message_and_their_own_arguments_in_order():
    source, seen = SimpleFilter(), []
    source.registerCallback(lambda *got: seen.append(got), 'first', 1)
    source.registerCallback(lambda *got: seen.append(got), 'second')
    source.signalMessage('message')
    assert seen == [('message', 'first', 1), ('message', 'second')]


@stand_in_only
def test_an_unregistered_callback_is_not_called_and_its_number_not_reused():
    source, seen = SimpleFilter(), []
    first = source.registerCallback(seen.append)
    second = source.registerCallback(lambda message: seen.append(message * 10))
    source.unregisterCallback(first)
    assert source.registerCallback(lambda message: seen.append(message * 100)) not in (
        first, second)
    source.signalMessage(1)
    assert seen == [10, 100]


# -- TimeSynchronizer --------------------------------------------------------------------------

def test_exact_joins_equal_stamps_only():
    bench = Bench(TimeSynchronizer, 2, 10)
    assert bench.feed(0, 100, 200) == []
    assert bench.feed(1, 99.999999, 200.000001) == []
    assert bench.feed(1, 100) == [(100, 100)]
    assert bench.feed(1, 200) == [(100, 100), (200, 200)]


def test_exact_waits_for_every_input():
    bench = Bench(TimeSynchronizer, 3, 10)
    bench.feed(2, 100)
    assert bench.feed(0, 100) == []
    assert bench.feed(1, 100) == [(100, 100, 100)]


def test_a_message_is_used_once():
    bench = Bench(TimeSynchronizer, 2, 10)
    bench.feed(0, 100)
    bench.feed(1, 100)
    assert bench.feed(1, 100) == [(100, 100)]


def test_the_oldest_stamp_leaves_a_full_queue():
    bench = Bench(TimeSynchronizer, 2, 2)
    bench.feed(0, 300, 100, 200)  # 100 goes, although 300 came first
    assert bench.feed(1, 100) == []
    assert bench.feed(1, 200) == [(200, 200)]
    assert bench.feed(1, 300) == [(200, 200), (300, 300)]


# -- ApproximateTimeSynchronizer ---------------------------------------------------------------

def test_approximate_takes_the_nearest():
    bench = Bench(ApproximateTimeSynchronizer, 2, 10, 0.050)
    bench.feed(0, 1000, 1040, 1080)
    assert bench.feed(1, 1045) == [(1040, 1045)]        # 45, 5 and 35 ms away
    assert bench.feed(1, 1050) == [(1040, 1045), (1080, 1050)]  # 50, taken, 30


def test_the_slop_is_a_strict_bound():
    bench = Bench(ApproximateTimeSynchronizer, 2, 10, 0.050)
    bench.feed(0, 1000)
    assert bench.feed(1, 1050) == []
    assert bench.feed(1, 1049.999999) == [(1000, 1049.999999)]
    bench = Bench(ApproximateTimeSynchronizer, 3, 10, 0.050)
    bench.feed(0, 1000)
    bench.feed(1, 1050)
    assert bench.feed(2, 1025) == []  # near to both, which are too far apart


def test_the_slop_holds_between_all_inputs_not_only_to_the_newest():
    bench = Bench(ApproximateTimeSynchronizer, 3, 10, 0.050)
    bench.feed(0, 1000)
    bench.feed(1, 1080)
    assert bench.feed(2, 1040) == []  # 40 from either, but they are 80 apart
    assert bench.feed(1, 1045) == [(1000, 1045, 1040)]


def test_a_farther_message_is_taken_where_the_nearest_does_not_fit_the_others():
    bench = Bench(ApproximateTimeSynchronizer, 3, 10, 0.050)
    bench.feed(0, 1025, 974)
    bench.feed(1, 970)
    # 1025 is nearer to 1000 than 974 is, but 55 ms from the only candidate of the other input.
    assert bench.feed(2, 1000) == [(974, 970, 1000)]


def test_messages_without_header_are_dropped():
    source = SimpleFilter()
    sync = ApproximateTimeSynchronizer([source, SimpleFilter()], 10, 0.1)
    source.signalMessage(SimpleNamespace(data=1))
    assert [len(queue) for queue in sync.queues] == [0, 0]


def test_messages_without_header_get_the_time_of_arrival_if_allowed():
    sources, sets = [SimpleFilter(), SimpleFilter()], []
    sync = ApproximateTimeSynchronizer(sources, 10, 60.0, allow_headerless=True)
    sync.registerCallback(lambda *messages: sets.append([m.data for m in messages]))
    sources[0].signalMessage(SimpleNamespace(data=1))
    sources[1].signalMessage(SimpleNamespace(data=2))
    assert sets == [[1, 2]]


@pytest.mark.skipif(
    'sync_arrival_time' not in inspect.signature(ApproximateTimeSynchronizer).parameters,
    reason='this message_filters has no sync_arrival_time: it came with ROS 2 Kilted')
def test_time_of_arrival_replaces_the_stamps_if_asked():
    bench = Bench(ApproximateTimeSynchronizer, 2, 10, 60.0, sync_arrival_time=True)
    bench.feed(0, 1000)
    assert bench.feed(1, 900_000) == [(1000, 900_000)]


@stand_in_only
def test_offsets_are_subtracted_from_the_stamps_of_their_input():
    bench = Bench(ApproximateTimeSynchronizer, 2, 10, 0.010, queue_offset=[0, 100_000_000])
    bench.feed(0, 1000)
    assert bench.feed(1, 1005) == []
    assert bench.feed(1, 1103) == [(1000, 1103)]
    bench.feed(1, 2100)
    assert bench.feed(0, 2000) == [(1000, 1103), (2000, 2100)]


# -- both synchronizers ------------------------------------------------------------------------

BOTH = pytest.mark.parametrize('synchronizer, slop', [
    (TimeSynchronizer, ()), (ApproximateTimeSynchronizer, (0.010,))])


@BOTH
def test_every_set_is_delivered_once_with_inputs_in_threads(synchronizer, slop):
    count = 300
    bench = Bench(synchronizer, 3, count, *slop)
    stamps = [1000 + 100 * index for index in range(count)]
    in_threads(bench.feed, *[(index, *stamps) for index in range(3)])
    assert sorted(bench.sets) == [(stamp, stamp, stamp) for stamp in stamps]


@stand_in_only
@BOTH
def test_a_raising_callback_does_not_stall_the_inputs(synchronizer, slop):
    # The real package would keep its lock: the second feed would wait for ever.
    bench = Bench(synchronizer, 2, 10, *slop)
    failing = [True]

    def fail_once(*_messages):
        if failing:
            failing.clear()
            raise RuntimeError('callback')

    bench.synchronizer.callbacks.clear()
    bench.synchronizer.registerCallback(fail_once)
    bench.synchronizer.registerCallback(bench.collect)
    bench.feed(0, 100)
    with pytest.raises(RuntimeError, match='callback'):
        bench.feed(1, 100)
    # Another thread, as an executor's: a lock still held by this one would not let it in.
    in_threads(bench.feed, (0, 200), (1, 200))
    assert bench.sets == [(200, 200)]  # and 100, which failed, is not tried again


@stand_in_only
@BOTH
def test_a_callback_may_feed_its_own_synchronizer(synchronizer, slop):
    bench = Bench(synchronizer, 2, 10, *slop)

    def feed_on(first, _second):
        if first.milliseconds < 300:
            bench.feed(0, first.milliseconds + 100)
            bench.feed(1, first.milliseconds + 100)

    bench.synchronizer.registerCallback(feed_on)
    bench.feed(0, 100)
    in_threads(bench.feed, (1, 100))
    assert bench.sets == [(100, 100), (200, 200), (300, 300)]


# -- Cache -------------------------------------------------------------------------------------

def ros_time(milliseconds):
    """Return the time that the stamp of ``stamped(milliseconds)`` stands for."""
    return Time(nanoseconds=milliseconds * 1_000_000, clock_type=ClockType.ROS_TIME)


def test_cache_answers_by_time():
    source = SimpleFilter()
    cache = Cache(source, 3)
    assert cache.getLast() is None
    assert cache.getOldestTime() is None
    assert cache.getLastestTime() is None
    messages = [stamped(stamp) for stamp in (100, 200, 300, 400)]
    for message in messages:
        source.signalMessage(message)
    assert cache.getOldestTime() == ros_time(200)  # 100 had to go
    assert cache.getLastestTime() == ros_time(400)
    assert cache.getLast() is messages[3]
    assert cache.getInterval(ros_time(200), ros_time(300)) == messages[1:3]
    assert cache.getInterval(ros_time(201), ros_time(299)) == []
    assert cache.getElemAfterTime(ros_time(201)) is messages[2]
    assert cache.getElemAfterTime(ros_time(401)) is None
    assert cache.getElemBeforeTime(ros_time(399)) is messages[2]
    assert cache.getElemBeforeTime(ros_time(199)) is None


def test_cache_passes_messages_on():
    source, seen = SimpleFilter(), []
    Cache(source, 1).registerCallback(seen.append)
    messages = [stamped(100), stamped(200)]
    for message in messages:
        source.signalMessage(message)
    assert seen == messages


def test_cache_takes_messages_without_header_only_if_allowed():
    source = SimpleFilter()
    strict, lenient = Cache(source, 5), Cache(source, 5, allow_headerless=True)
    message = SimpleNamespace(data=1)
    source.signalMessage(message)
    assert strict.getLast() is None
    assert lenient.getLast() is message


# -- over DDS ----------------------------------------------------------------------------------

class Graph:
    """Two nodes, a publisher and a subscriber, in a context and a namespace of their own."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        namespace = f'/test_{uuid.uuid4().hex}'
        self.sender = Node('sender', context=self.context, namespace=namespace)
        self.receiver = Node('receiver', context=self.context, namespace=namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.receiver)

    def spin_until(self, done, act):
        """Alternate ``act()`` and handling what arrives until ``done()``; fail at the deadline."""
        end = time.monotonic() + DEADLINE
        while not done():
            assert time.monotonic() < end, 'deadline reached'
            act()
            self.executor.spin_once(timeout_sec=0.05)

    def close(self):
        """Destroy nodes and context."""
        self.executor.shutdown()
        self.sender.destroy_node()
        self.receiver.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def graph():
    """Yield a Graph and close it."""
    result = Graph()
    yield result
    result.close()


class Pairs:
    """Publishes pairs of an image and a camera_info, the latter 3 ms later, until told to stop."""

    def __init__(self, graph):
        self.image = graph.sender.create_publisher(Image, 'image', qos_profile_sensor_data)
        self.info = graph.sender.create_publisher(CameraInfo, 'info', qos_profile_sensor_data)
        self.sent = 0

    def send(self):
        """Publish the next pair: the width counts them, 100 ms between them."""
        self.sent += 1
        stamp = 1000 + 100 * self.sent
        image, info = Image(width=self.sent), CameraInfo(width=self.sent)
        image.header.stamp = ros_time(stamp).to_msg()
        info.header.stamp = ros_time(stamp + 3).to_msg()
        self.image.publish(image)
        self.info.publish(info)


def subscribers(graph):
    """Return the Subscribers of a Pairs' two topics."""
    return [Subscriber(graph.receiver, Image, 'image', qos_profile=qos_profile_sensor_data),
            Subscriber(graph.receiver, CameraInfo, 'info', qos_profile=qos_profile_sensor_data)]


def test_messages_are_paired_over_dds(graph):
    pairs, seen = Pairs(graph), []
    sync = ApproximateTimeSynchronizer(subscribers(graph), queue_size=10, slop=0.020)
    sync.registerCallback(lambda image, info: seen.append((image, info)))
    graph.spin_until(lambda: len(seen) >= 3, pairs.send)
    for image, info in seen:
        assert isinstance(image, Image)
        assert isinstance(info, CameraInfo)
        assert image.width == info.width


def test_a_subscriber_is_also_its_subscription(graph):
    image, _ = subscribers(graph)
    assert image.topic == 'image'
    assert image.topic_name == f'{graph.receiver.get_namespace()}/image'
    assert image.qos_profile.reliability == qos_profile_sensor_data.reliability
    with pytest.raises(AttributeError):
        getattr(image, 'no_such_attribute')  # noqa: B009 (an access, not a value)
    assert graph.receiver.destroy_subscription(image.sub)


def test_quality_of_service_defaults_to_a_depth_of_ten(graph):
    subscriber = Subscriber(graph.receiver, Image, 'image')
    assert subscriber.qos_profile.depth == 10


@stand_in_only
def test_a_raising_callback_does_not_stall_dds_inputs(graph):
    pairs, seen = Pairs(graph), []

    def fail_then_collect(image, info):
        seen.append((image.width, info.width))
        if len(seen) == 1:
            raise RuntimeError('callback')

    sync = ApproximateTimeSynchronizer(subscribers(graph), queue_size=10, slop=0.020)
    sync.registerCallback(fail_then_collect)
    with pytest.raises(RuntimeError, match='callback'):
        graph.spin_until(lambda: len(seen) > 1, pairs.send)
    graph.spin_until(lambda: len(seen) >= 3, pairs.send)
    assert all(image == info for image, info in seen)
    assert len(set(seen)) == len(seen)
