# make demo, make test, make lint: each brings the environment in .venv up to date first.
SHELL := /bin/sh
.DEFAULT_GOAL := help

SCENES ?=
SEED ?=
GUI ?=
DEMO_ARGS ?=
TEST_ARGS ?=
# As many as there are cores, at most four: each with PyTorch and a ROS domain of its own.
TEST_PROCESSES ?= auto
export PYTHON PIP_EXTRA

# Inherited from another environment's Python, it would keep ours from finding its libraries.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

export MUJOCO_GL ?= egl
# What libraries would write into the home folder stays in the project folder.
export MPLCONFIGDIR ?= $(CURDIR)/.cache/matplotlib
export ROS_LOG_DIR ?= $(CURDIR)/.cache/ros-log

RUN := .venv/bin/python
demo_options := $(if $(SCENES),--scenes $(SCENES)) $(if $(SEED),--seed $(SEED)) $(if $(filter-out 0,$(GUI)),--gui)

.PHONY: help setup demo test lint docs clean

help:
	@echo 'make demo    simulated camera, ROS 2 node, service call, grasp, lift'
	@echo '             options: SCENES=5 SEED=1 GUI=1'
	@echo 'make test    the whole test suite; TEST_ARGS="test/test_rgbd.py -k hole" for a part,'
	@echo '             TEST_PROCESSES=0 for a single process'
	@echo 'make lint    ruff and mypy'
	@echo 'make docs    the documentation as a site, in .cache/site/index.html'
	@echo 'make setup   only make or update the environment in .venv (the others do it as well);'
	@echo '             options: PYTHON=python3.11  PIP_EXTRA="more options for pip"'
	@echo 'make clean   remove the environment and everything built'

setup:
	@python=$$(sh scripts/find_python.sh) && "$$python" scripts/setup_env.py

demo: setup
	@$(RUN) -m grasp_stn_ros.ros.demo $(demo_options) $(DEMO_ARGS)

test: export OMP_NUM_THREADS ?= 1
test: setup
	$(RUN) -m pytest -n $(TEST_PROCESSES) --maxprocesses 4 --dist loadfile $(TEST_ARGS)

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m mypy

docs: export NO_MKDOCS_2_WARNING ?= 1
docs: setup
	$(RUN) -m mkdocs build --strict

clean:
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build install log *.egg-info
