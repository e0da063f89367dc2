#!/usr/bin/env bash
# Installs oneshui itself into the environment, from the checkout that runs the workflow.
set -euo pipefail
python -m pip install --no-deps .
