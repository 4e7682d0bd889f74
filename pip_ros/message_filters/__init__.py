"""
Stand-in for the Python API of ROS 2's ``message_filters``, which PyPI does not carry.

It is only installed where the real package is missing, that is, where rclpy comes from wheels.
Names, call signatures and semantics are those of the original in ROS 2 Kilted, so that code
written for one runs with the other. It has ``SimpleFilter``, ``Subscriber``, ``Cache``,
``TimeSynchronizer`` and ``ApproximateTimeSynchronizer``; the original's ``Chain``,
``TimeSequencer`` and ``InputAligner`` are not here.

Where it differs, on purpose:

- A callback that raises does not stall the filter: the lock is released and the messages of that
  set are gone. The original keeps the lock and never lets another message in.
- A callback may feed the filter that called it (the original deadlocks).
- ``queue_offset`` also holds for the message that completes a set.

``TimeSynchronizer`` keeps messages that are older than the last set, as the original does in Jazzy
and in Kilted before 7.1.5; later releases drop them. Streams whose stamps only grow do not show
the difference.

The ``slop`` is a strict bound, as in the original: stamps exactly ``slop`` apart do not match, and
a slop of 0 matches nothing (use ``TimeSynchronizer``).
"""

import itertools
import threading

from rclpy.clock import ROSClock
from rclpy.duration import Duration
import rclpy.logging
from rclpy.time import Time

__all__ = [
    'ApproximateTimeSynchronizer', 'Cache', 'SimpleFilter', 'Subscriber', 'TimeSynchronizer']

#: Tells the stand-in from the real package, which has no such name.
IS_STAND_IN = True


def _header_stamp(msg):
    """Return the stamp of the message's header as ``rclpy.time.Time``, None without a header."""
    stamp = getattr(getattr(msg, 'header', None), 'stamp', None)
    if stamp is None or isinstance(stamp, Time):
        return stamp
    return Time.from_msg(stamp)


def _warn_headerless(logger_name):
    """Say why a message without a stamp was dropped, and what would take it."""
    rclpy.logging.get_logger(logger_name).warning(
        'dropped a message without header.stamp; set allow_headerless=True to use the time of '
        'arrival instead')


class SimpleFilter:
    """Something with an output that callbacks can be connected to; base of all filters."""

    def __init__(self):
        self.callbacks = {}
        self._connections = itertools.count()

    def registerCallback(self, cb, *args):
        """Call ``cb(*messages, *args)`` on every output; return the number of the connection."""
        connection = next(self._connections)
        self.callbacks[connection] = (cb, args)
        return connection

    def unregisterCallback(self, conn):
        """Forget the connection that ``registerCallback`` returned; unknown ones are ignored."""
        self.callbacks.pop(conn, None)

    def signalMessage(self, *msg):
        """Hand the messages to every callback, in the order of registration."""
        # A copy: a callback may register or unregister callbacks.
        for cb, args in list(self.callbacks.values()):
            cb(*msg, *args)


class Subscriber(SimpleFilter):
    """
    A ROS subscription as the source of a chain of filters.

    Takes the arguments of ``Node.create_subscription`` without the callback; ``qos_profile``
    defaults to a depth of 10. Attributes that it does not have are those of the subscription,
    which is ``sub`` (``node.destroy_subscription(subscriber.sub)`` ends it).
    """

    def __init__(self, node, msg_type, topic, qos_profile=10, **kwargs):
        super().__init__()
        self.node = node
        self.topic = topic
        self.sub = node.create_subscription(
            msg_type, topic, self.callback, qos_profile, **kwargs)

    def callback(self, msg):
        """Pass on one received message."""
        self.signalMessage(msg)

    def getTopic(self):
        """Return the topic as it was given."""
        return self.topic

    def __getattr__(self, key):
        """Look up in the subscription what this object does not have."""
        if key == 'sub':  # not there yet: create_subscription failed
            raise AttributeError(key)
        return getattr(self.sub, key)


class Cache(SimpleFilter):
    """
    The last ``cache_size`` messages of a filter, to be asked for by time.

    Messages are held in the order of their arrival. Those without a header are refused with a
    warning, or stamped with the ROS time of their arrival when ``allow_headerless`` is set.
    """

    def __init__(self, f, cache_size=1, allow_headerless=False):
        super().__init__()
        self.cache_size = cache_size
        self.cache_msgs = []
        self.cache_times = []
        self.allow_headerless = allow_headerless
        self._lock = threading.Lock()
        self.connectInput(f)

    def connectInput(self, f):
        """Take the output of filter ``f`` as input."""
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg):
        """Store a message, forget the one that arrived first if there are too many, pass it on."""
        stamp = _header_stamp(msg)
        if stamp is None:
            if not self.allow_headerless:
                _warn_headerless('message_filters_cache')
                return
            stamp = ROSClock().now()
        with self._lock:
            self.cache_msgs.append(msg)
            self.cache_times.append(stamp)
            excess = len(self.cache_msgs) - self.cache_size
            if excess > 0:
                del self.cache_msgs[:excess]
                del self.cache_times[:excess]
        self.signalMessage(msg)

    def _content(self):
        """Return the (message, stamp) pairs of this moment."""
        with self._lock:
            return list(zip(self.cache_msgs, self.cache_times, strict=True))

    def getInterval(self, from_stamp, to_stamp):
        """Return the messages with ``from_stamp <= stamp <= to_stamp``."""
        assert from_stamp <= to_stamp
        return [msg for msg, stamp in self._content() if from_stamp <= stamp <= to_stamp]

    def getElemAfterTime(self, stamp):
        """Return the first message at or after ``stamp``, or None."""
        return next((msg for msg, time in self._content() if time >= stamp), None)

    def getElemBeforeTime(self, stamp):
        """Return the last message at or before ``stamp``, or None."""
        return next((msg for msg, time in reversed(self._content()) if time <= stamp), None)

    def getLatestTime(self):
        """Return the stamp of the last message, or None."""
        content = self._content()
        return content[-1][1] if content else None

    #: The original's older spelling, the only one in Jazzy.
    getLastestTime = getLatestTime

    def getOldestTime(self):
        """Return the stamp of the first message, or None."""
        content = self._content()
        return content[0][1] if content else None

    def getLast(self):
        """Return the message with the latest time, or None."""
        latest = self.getLatestTime()
        return None if latest is None else self.getElemAfterTime(latest)


class TimeSynchronizer(SimpleFilter):
    """
    Calls back with one message of every input when their stamps are equal.

    Each input has its own queue of at most ``queue_size`` messages; the oldest stamp leaves
    first. ``queues`` holds them: one dict a filter, from nanoseconds to message. Callbacks run one
    after the other, under the lock, in the thread that delivered the last message of the set: a
    slow callback holds up all inputs, so it should only hand the messages over.
    """

    def __init__(self, fs, queue_size):
        super().__init__()
        self.queue_size = queue_size
        # Reentrant: a callback may feed one of the inputs.
        self.lock = threading.RLock()
        self.connectInput(fs)

    def connectInput(self, fs):
        """Take the outputs of the filters ``fs`` as inputs, in this order."""
        self.queues = [{} for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, queue, index)
            for index, (f, queue) in enumerate(zip(fs, self.queues, strict=True))]

    def _store(self, queue, nanoseconds, msg):
        """Put a message into its queue and keep the queue within its size."""
        queue[nanoseconds] = msg
        while len(queue) > self.queue_size:
            del queue[min(queue)]

    def _signal_set(self, keys):
        """Take one message out of every queue and call back with them."""
        # Out of the queues first: a set is delivered once, whatever the callback does.
        self.signalMessage(
            *[queue.pop(key) for queue, key in zip(self.queues, keys, strict=True)])

    def add(self, msg, my_queue, my_queue_index=None):
        """Store a message of one input; call back for every stamp that is complete."""
        nanoseconds = _header_stamp(msg).nanoseconds
        with self.lock:
            self._store(my_queue, nanoseconds, msg)
            # Only the new stamp can complete a set, unless a callback raised in an earlier one.
            while True:
                complete = set.intersection(*map(set, self.queues))
                if not complete:
                    return
                self._signal_set([min(complete)] * len(self.queues))


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """
    Calls back with one message of every input when their stamps are less than ``slop`` apart.

    Of several messages that would do, the ones nearest to the newly arrived message are taken.

    - ``slop``: seconds; all stamps of a set lie within less than this.
    - ``queue_offset``: nanoseconds to subtract from the stamps of each input, in the order of
      ``fs``; False for none. Jazzy does not have it, so pass what follows by name.
    - ``allow_headerless``: use the ROS time of arrival for messages without a header, which are
      otherwise dropped with a warning.
    - ``sync_arrival_time``: use the ROS time of arrival for all messages.
    """

    def __init__(self, fs, queue_size, slop, queue_offset=False, allow_headerless=False,
                 sync_arrival_time=False):
        self.slop = Duration(seconds=slop)
        self.queue_offset = queue_offset
        self.allow_headerless = allow_headerless
        self.sync_arrival_time = sync_arrival_time
        super().__init__(fs, queue_size)

    def add(self, msg, my_queue, my_queue_index=None):
        """Store a message of one input; call back if it completes a set."""
        stamp = None if self.sync_arrival_time else _header_stamp(msg)
        if stamp is None:
            if not (self.allow_headerless or self.sync_arrival_time):
                _warn_headerless('message_filters_approx')
                return
            stamp = ROSClock().now()
        nanoseconds = stamp.nanoseconds
        if self.queue_offset and my_queue_index is not None:
            nanoseconds -= self.queue_offset[my_queue_index]
        with self.lock:
            self._store(my_queue, nanoseconds, msg)
            if nanoseconds not in my_queue:
                return  # older than everything in a full queue: gone again
            keys = self._find_set(my_queue, nanoseconds)
            if keys is not None:
                self._signal_set(keys)

    def _find_set(self, my_queue, new):
        """
        Return one key of every queue, all less than the slop apart, or None.

        Depth first over the queues, the keys of each by their distance from ``new``; a branch
        ends where its keys already lie too far apart.
        """
        slop = self.slop.nanoseconds
        # The choice in the queue of the new message is the new message itself.
        choices = [
            [new] if queue is my_queue else
            sorted((key for key in queue if abs(key - new) < slop), key=lambda k: abs(k - new))
            for queue in self.queues]

        def extend(chosen, low, high):
            if high - low >= slop:
                return None
            if len(chosen) == len(choices):
                return chosen
            for key in choices[len(chosen)]:
                found = extend([*chosen, key], min(low, key), max(high, key))
                if found is not None:
                    return found
            return None

        return extend([], new, new)
