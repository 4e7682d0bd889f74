"""Ask grasp_node for a grasp and print it: `python3 simple_client.py [--ros-args -r ...]`."""

import sys

import rclpy

from grasp_stn_interfaces.srv import DetectGrasp


def main() -> int:
    """Call the service once; 0 when there is a grasp."""
    rclpy.init()
    node = rclpy.create_node('simple_client')
    try:
        client = node.create_client(DetectGrasp, 'grasp_node/detect_grasp')
        if not client.wait_for_service(timeout_sec=30.0):
            print(f'no service {client.service_name}: is grasp_node running in this domain?')
            return 2
        future = client.call_async(DetectGrasp.Request(timeout=5.0))
        rclpy.spin_until_future_complete(node, future, timeout_sec=10.0)
        answer = future.result()
        if answer is None:
            print('grasp_node did not answer; has it ended?')
            return 2
        if not answer.success:
            print(f'no grasp: {answer.message}')
            return 1
        grasp, position = answer.grasp, answer.grasp.pose.position
        print(f'grasp in {grasp.header.frame_id} with score {grasp.score:.2f}: '
              f'x {position.x:.3f}  y {position.y:.3f}  z {position.z:.3f} m, '
              f'open {grasp.opening * 1e3:.0f} mm')
        return 0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
