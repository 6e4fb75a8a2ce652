# The gateway in front of a vLLM that runs elsewhere: no torch, no vLLM, no compiler.
#   docker build -t searchr1-gateway .
#   docker run -p 8000:8000 -e SEARCHR1_API_KEYS=… -e SEARCHR1_ENGINE_URL=http://vllm:8000 -e SEARCHR1_MODEL=… -e SEARCHR1_RETRIEVER=http://…/retrieve searchr1-gateway
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/build && python -m venv --without-pip /opt/searchr1
# The locks come first: this layer lasts until one of them changes.
COPY requirements/build.lock requirements/server.lock requirements/
RUN /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.lock \
    && /opt/build/bin/pip --python /opt/searchr1/bin/python install --no-deps --require-hashes -r requirements/server.lock
COPY pyproject.toml README.md CHANGELOG.md LICENSE NOTICE ./
COPY server server
COPY client/searchr1_client client/searchr1_client
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/build/bin/pip --python /opt/searchr1/bin/python install --no-deps /tmp/wheel/*.whl

FROM python:3.11-slim AS gateway
RUN useradd --system --uid 10001 --create-home searchr1
COPY --from=build /opt/searchr1 /opt/searchr1
ENV PATH=/opt/searchr1/bin:$PATH PYTHONUNBUFFERED=1 SEARCHR1_HOST=0.0.0.0 SEARCHR1_PORT=8000
USER 10001
WORKDIR /home/searchr1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['SEARCHR1_PORT']}/healthz\", timeout=2)"]
# `searchr1 serve` handles SIGTERM itself and lets running requests end, so it has to be process 1.
ENTRYPOINT ["searchr1"]
CMD ["serve"]

# The demo: the gateway, the demo's data and vLLM's CPU build. torch's is on the PyTorch CPU index.
#   docker build --target demo --build-arg PIP_EXTRA_INDEX_URL=… -t searchr1-demo .
FROM build AS build-demo
ARG PIP_EXTRA_INDEX_URL
COPY requirements/demo.lock requirements/
RUN /opt/build/bin/pip --python /opt/searchr1/bin/python install --no-deps --require-hashes -r requirements/demo.lock

FROM gateway AS demo
USER 0
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
COPY --from=build-demo /opt/searchr1 /opt/searchr1
# There is no compiler in the image.
ENV SEARCHR1_ENFORCE_EAGER=true HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
USER 10001
CMD ["serve", "--demo"]

# What is built without --target.
FROM gateway
