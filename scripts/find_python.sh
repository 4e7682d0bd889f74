#!/bin/sh
# Print a Python 3.10-3.12 that can hold the environment, or say what is missing.
#
# $PYTHON, if set, is the only candidate. Otherwise an environment that is already there keeps its
# interpreter; with a sourced ROS 2, the one that can import its rclpy comes first.

can() {  # interpreter, statement: try it (a pyenv shim can exist and still not run)
    "$1" -c "$2" >/dev/null 2>&1 </dev/null
}
path_of() { "$1" -c 'import sys; print(sys.executable)'; }
in_range='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
# -S keeps an environment's start-up hooks out of the answer.
base='import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))'

if [ -n "$PYTHON" ]; then
    can "$PYTHON" "$in_range" && { path_of "$PYTHON"; exit 0; }
    echo "PYTHON=$PYTHON is not a working Python 3.10, 3.11 or 3.12." >&2
    exit 1
fi

if [ -n "$ROS_DISTRO" ] && [ -n "$AMENT_PREFIX_PATH" ]; then
    for candidate in python3 python3.12 python3.11 python3.10 /usr/bin/python3; do
        can "$candidate" "$in_range" && can "$candidate" 'import rclpy' \
            && { path_of "$candidate"; exit 0; }
    done
    echo "ROS 2 $ROS_DISTRO is sourced, but no Python 3.10-3.12 found here can import its rclpy." >&2
    echo "Name one with 'make PYTHON=...', or use a shell without a sourced ROS 2 to get" \
        'ROS 2 from wheels instead.' >&2
    exit 1
fi

if [ -x .venv/bin/python ] && can .venv/bin/python "$in_range"; then
    kept=$(.venv/bin/python -S -c "$base" 2>/dev/null)
    [ -n "$kept" ] && can "$kept" "$in_range" && { echo "$kept"; exit 0; }
fi

first=
for candidate in python3.12 python3.11 python3.10 python3; do
    can "$candidate" "$in_range" || continue
    [ -n "$first" ] || first=$candidate
    # Debian ships interpreters without venv or without headers; prefer a complete one.
    can "$candidate" 'import ensurepip, os, sysconfig, venv
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' \
        && { path_of "$candidate"; exit 0; }
done
[ -n "$first" ] && { path_of "$first"; exit 0; }

echo 'No Python 3.10, 3.11 or 3.12 found. On Debian and Ubuntu:' >&2
echo '    sudo apt-get install python3 python3-venv python3-dev' >&2
echo 'or name one with make PYTHON=/path/to/python3.11' >&2
exit 1
