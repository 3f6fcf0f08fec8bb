# The server as an image: docker build --target cpu -t tokenformer-server:cpu . (or cuda). How to run it: docs/deploy.md

# Where the CPU build of torch is taken from; the packages of the lock come from pip's usual sources.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu


FROM python:3.11-slim-bookworm AS project
# For the CPU kernels, which are compiled for every x86-64 at once: the image runs where it was not built.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY pyproject.toml setup.py README.md LICENSE ./
COPY model_impl model_impl
COPY server server
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /wheels .


# The steps of scripts/setup.sh, less what only development needs.
FROM python:3.11-slim-bookworm AS packages
ARG TORCH_INDEX
WORKDIR /build
COPY requirements requirements
RUN python3 -m venv --without-pip /opt/tokenformer
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/tokenformer/bin/python install --no-deps --index-url "$TORCH_INDEX" -r requirements/cpu-torch.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/tokenformer/bin/python install --no-deps --require-hashes --only-binary=:all: -r requirements/cpu.txt
COPY --from=project /wheels /wheels
COPY scripts scripts
RUN pip --python /opt/tokenformer/bin/python install --no-deps /wheels/*.whl \
    && /opt/tokenformer/bin/python -m scripts.surplus > surplus.txt \
    && pip --python /opt/tokenformer/bin/python uninstall --yes -r surplus.txt


FROM python:3.11-slim-bookworm AS cpu
# vLLM's CPU kernels are linked to libnuma. No compiler: nothing is compiled at run time.
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin tokenformer
COPY --from=packages /opt/tokenformer /opt/tokenformer
COPY demo/checkpoint /models/tokenformer-demo
# The root may be read-only: caches live below HOME, in the tmpfs at /tmp. Checkpoints are directories, never downloads.
ENV PATH=/opt/tokenformer/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1
WORKDIR /models
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=8)"]
ENTRYPOINT ["tokenformer"]
CMD ["serve", "/models/tokenformer-demo", "--host", "0.0.0.0"]


# vLLM's image brings vLLM, torch, CUDA and all that serving needs besides, and is Ubuntu with Python 3.12.
FROM vllm/vllm-openai:v0.32.0 AS cuda
COPY --from=project /wheels /wheels
RUN uv pip install --system --no-deps /wheels/*.whl && rm -r /wheels
RUN useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin tokenformer
COPY demo/checkpoint /models/tokenformer-demo
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1
WORKDIR /models
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=8)"]
ENTRYPOINT ["tokenformer"]
CMD ["serve", "/models/tokenformer-demo", "--host", "0.0.0.0"]
