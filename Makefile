PYTHON ?=
PORT ?= 8000

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-wiki test test-fast image-test check check-verl release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything into .venv from requirements/dev.lock (Python 3.13, 3.12 or 3.11, the newest there is; PYTHON=…)
	@PYTHON="$(PYTHON)" scripts/setup

demo: setup ## serve the demo model on real vLLM at http://127.0.0.1:8000 (PORT=…)
	@exec .venv/bin/searchr1 serve --demo --port $(PORT)

demo-wiki: setup ## the same with a pretrained model that reads English, on Wikipedia's leads (downloads 98 MB, once)
	@scripts/setup-demo-wiki && .venv/bin/searchr1 demo build-wiki
	@exec .venv/bin/searchr1 serve --demo-wiki --port $(PORT)

test: setup ## lint, types and all tests
	@scripts/test

test-fast: setup ## the tests that need nothing but Python, in some minutes
	@scripts/test-fast

image-test: setup ## build the gateway's image without Docker, and run it as a restricted pod (as root)
	@scripts/setup-image && scripts/setup-deploy && .venv/bin/python -m pytest tests/deploy/test_image.py

check: setup ## lint, formatting and types only
	@scripts/check

check-verl: setup ## run exports for verl in real verl, in an environment of its own, without a GPU
	@scripts/check-verl

release: setup ## build and check both distributions, and say what a maintainer does next
	@scripts/release

clean: ## remove the demo's data, builds, images and caches; .venv stays
	[ ! -d .image ] || { umount .image/storage/overlay/*/merged .image/storage/overlay 2>/dev/null; rm -rf .image; }
	rm -rf data dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find server client tests loadtests -name __pycache__ -type d -prune -exec rm -rf {} +
