"""Build description of the ament_python package grasp_stn_ros."""

import os

from setuptools import find_packages, setup

PACKAGE = 'grasp_stn_ros'
SHARE = f'share/{PACKAGE}'


def shared(folder):
    """Return (target, files) pairs that install a folder and its subfolders below share/."""
    return [
        (os.path.join(SHARE, path), [os.path.join(path, name) for name in sorted(names)])
        for path, folders, names in sorted(os.walk(folder))
        if names and '__pycache__' not in path
    ]


setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed', 'annotation/page.html']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (SHARE, ['package.xml']),
        *shared('launch'),
        *shared('config'),
        *shared('models'),
    ],
    install_requires=['setuptools'],
    extras_require={
        'record': ['mcap', 'mcap-ros2-support'],
        'view': ['mcap', 'mcap-ros2-support', 'rerun-sdk'],
    },
    python_requires='>=3.10',
    zip_safe=False,
    maintainer='grasp_stn_ros maintainers',
    maintainer_email='maintainer@example.com',
    description='Robotic grasp detection with a multi-stage spatial transformer network.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'grasp_demo = grasp_stn_ros.ros.demo:main',
            'grasp_node = grasp_stn_ros.ros.entry:grasp_node',
            'grasp_stn = grasp_stn_ros.cli:main',
            'sim_camera = grasp_stn_ros.ros.entry:sim_camera',
        ],
    },
)
