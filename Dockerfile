# One file, four images; docs/guides/deploy.md says how each is run.
#   docker build -t searchr1-gateway .                          the gateway in front of a vLLM that runs elsewhere
#   docker build --target retriever -t searchr1-retriever .     … with indexes on this machine: BM25 and dense
#   docker build --target demo      -t searchr1-demo .          … with the demo and vLLM's CPU build
#   docker build --target trainer   -t searchr1-trainer .       … with the trainer, on vLLM's CPU build
# The last two take torch's CPU build from the PyTorch CPU index: --build-arg PIP_EXTRA_INDEX_URL=…
#
# The base is the multi-platform index that the tag had in September 2026, with Python 3.11.16. Newer ones are told by
# `docker buildx imagetools inspect python:3.11-slim-bookworm`.
ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/build && python -m venv --without-pip /opt/searchr1
# The locks come first: this layer lasts until one of them changes.
COPY requirements/build.lock requirements/gateway.lock requirements/
RUN /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.lock \
    && /opt/build/bin/pip --python /opt/searchr1/bin/python install --no-deps --require-hashes -r requirements/gateway.lock
COPY pyproject.toml README.md CHANGELOG.md LICENSE NOTICE ./
COPY server server
COPY client/searchr1_client client/searchr1_client
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/build/bin/pip --python /opt/searchr1/bin/python install --no-deps /tmp/wheel/*.whl

FROM build AS build-retriever
COPY requirements/retriever.lock requirements/
RUN /opt/build/bin/pip --python /opt/searchr1/bin/python install --no-deps --require-hashes -r requirements/retriever.lock

FROM build AS build-demo
ARG PIP_EXTRA_INDEX_URL
COPY requirements/demo.lock requirements/
RUN /opt/build/bin/pip --python /opt/searchr1/bin/python install --no-deps --require-hashes -r requirements/demo.lock

FROM build-demo AS build-trainer
COPY requirements/trainer.lock requirements/
RUN /opt/build/bin/pip --python /opt/searchr1/bin/python install --no-deps --require-hashes -r requirements/trainer.lock

# What all images have but their packages, which each takes whole, in one layer.
FROM ${BASE} AS runtime
RUN groupadd --gid 10001 searchr1 \
    && useradd --uid 10001 --gid 10001 --no-log-init --create-home --shell /usr/sbin/nologin searchr1
# All that is written goes below /tmp, so that the root can be read-only.
ENV PATH=/opt/searchr1/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp SEARCHR1_HOST=0.0.0.0 SEARCHR1_PORT=8000
USER 10001:10001
WORKDIR /home/searchr1
EXPOSE 8000
# A signal that `searchr1 serve` handles itself: running requests end first. So it has to be process 1, without a shell.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['SEARCHR1_PORT']}/healthz\", timeout=2)"]
ENTRYPOINT ["searchr1"]
CMD ["serve"]
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Search-R1 Serve" \
      org.opencontainers.image.description="The serving system for Search-R1 models: a reason-and-search loop on vLLM, behind one gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"

FROM runtime AS retriever
COPY --from=build-retriever /opt/searchr1 /opt/searchr1
ENV NUMBA_CACHE_DIR=/tmp/numba

# What vLLM's CPU build needs. There is no compiler in the image.
FROM runtime AS runtime-cpu
USER 0
# Debian's mirrors keep one version of a package, so a pinned one would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
# vLLM compiles its count of logprobs' ranks even in eager mode; without a compiler that would kill the engine.
ENV SEARCHR1_ENFORCE_EAGER=true TORCHDYNAMO_DISABLE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
USER 10001:10001

FROM runtime-cpu AS demo
COPY --from=build-demo /opt/searchr1 /opt/searchr1
CMD ["serve", "--demo"]

FROM runtime-cpu AS trainer
COPY --from=build-trainer /opt/searchr1 /opt/searchr1
# Its runs are written below the working directory: mount a volume there.
ENV HF_HUB_OFFLINE=0
HEALTHCHECK NONE
CMD ["train", "--help"]

FROM runtime AS gateway
COPY --from=build /opt/searchr1 /opt/searchr1
