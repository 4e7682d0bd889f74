"""
Measure how many RGB-D pairs get from one process to another, by Fast DDS set-up.

    .venv/bin/python scripts/measure_image_loss.py --json results/image_loss.json

One process sends pairs of 640x480 RGB and 16-bit depth at 30 Hz with the QoS of sensor data
(best effort), another one counts the pairs that message_filters puts together.
"""

import argparse
import array
import os
from pathlib import Path
import statistics
import subprocess
import sys
import time

PROFILE = Path(__file__).resolve().parent.parent / 'config' / 'fastdds_shm.xml'
RATE = 30.0
SETUPS = {'default': {},
          'LARGE_DATA': {'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'},
          'config/fastdds_shm.xml': {'FASTDDS_DEFAULT_PROFILES_FILE': str(PROFILE)}}
# Seconds: for discovery, and for what is still on its way after the last pair.
DISCOVERY, AFTERWARDS = 30.0, 2.0


def image(encoding: str, channel_bytes: int):
    """Return a 640x480 image message with ``channel_bytes`` bytes a pixel."""
    from sensor_msgs.msg import Image
    return Image(height=480, width=640, encoding=encoding, step=640 * channel_bytes,
                 data=array.array('B', bytes(640 * 480 * channel_bytes)))


def send(pairs: int) -> None:
    """Publish once both subscriptions are there."""
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
    rclpy.init()
    node = rclpy.create_node('sender')
    publishers = [node.create_publisher(Image, topic, qos_profile_sensor_data)
                  for topic in ('color', 'depth')]
    messages = [image('rgb8', 3), image('16UC1', 2)]
    deadline = time.monotonic() + DISCOVERY
    while not all(p.get_subscription_count() for p in publishers):
        if time.monotonic() > deadline:
            sys.exit('no subscriber appeared')
        time.sleep(0.05)
    begin = time.monotonic()
    for number in range(pairs):
        time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        stamp = node.get_clock().now().to_msg()
        for message, publisher in zip(messages, publishers, strict=True):
            message.header.stamp = stamp
            publisher.publish(message)
    time.sleep(AFTERWARDS)
    rclpy.shutdown()


def count(pairs: int) -> int:
    """Count pairs until all are there or the sender has long been done."""
    import message_filters
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
    rclpy.init()
    node = rclpy.create_node('counter')
    inputs = [message_filters.Subscriber(node, Image, topic, qos_profile=qos_profile_sensor_data)
              for topic in ('color', 'depth')]
    received = []
    synchronizer = message_filters.ApproximateTimeSynchronizer(inputs, 10, 0.02)
    synchronizer.registerCallback(lambda color, depth: received.append(1))
    deadline = time.monotonic() + DISCOVERY + pairs / RATE
    sender = subprocess.Popen([sys.executable, __file__, '--send', '--pairs', str(pairs)])
    try:
        while sender.poll() is None and len(received) < pairs and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        if sender.wait(timeout=DISCOVERY) != 0:
            raise SystemExit('the sender failed')
    finally:
        sender.kill()
    rclpy.shutdown()
    return len(received)


def main() -> None:
    """Run every set-up in turn, several times, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--pairs', type=int, default=180)
    parser.add_argument('--repetitions', type=int, default=3)
    parser.add_argument('--json', type=Path, help='write the result there')
    parser.add_argument('--count', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--send', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        send(options.pairs)
        return
    if options.count:
        print(count(options.pairs))
        return
    results: dict[str, list[int]] = {name: [] for name in SETUPS}
    for repetition in range(options.repetitions):
        # Interleaved, so that a busy minute of the machine meets all set-ups.
        for name, variables in SETUPS.items():
            environment = {k: v for k, v in os.environ.items()
                           if k not in ('FASTDDS_DEFAULT_PROFILES_FILE',
                                        'FASTRTPS_DEFAULT_PROFILES_FILE',
                                        'FASTDDS_BUILTIN_TRANSPORTS')}
            environment |= {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
                            'ROS_DOMAIN_ID': str(1 + os.getpid() % 100), **variables}
            output = subprocess.run(
                [sys.executable, __file__, '--count', '--pairs', str(options.pairs)],
                env=environment, check=True, capture_output=True, text=True,
                timeout=3 * DISCOVERY + options.pairs / RATE).stdout
            results[name].append(int(output.split()[-1]))
            print(f'run {repetition + 1}, {name}: {results[name][-1]} of {options.pairs} pairs',
                  flush=True)
    rows = [{'setup': name, 'received': counts, 'median': statistics.median(counts)}
            for name, counts in results.items()]
    if options.json:
        from grasp_stn_ros.evaluation.report import write_json
        write_json(options.json, {'n': options.pairs, 'rate': RATE, 'rows': rows})


if __name__ == '__main__':
    main()
