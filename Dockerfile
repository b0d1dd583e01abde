# CargoFlow's two images (docs/compose.md): a replica's, which is the last stage, and a worker's (--target worker), which is the same
# with what it takes to read documents. They hold no compiler, and neither the engines nor the command line of the local cluster.

ARG PYTHON_IMAGE=python:3.12-slim-trixie

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /srv/cargoflow
COPY requirements-image.lock .
# Wheels only, each with its hash: nothing is compiled here, so nothing is needed to compile it.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/venv \
    && pip --disable-pip-version-check --python /opt/venv/bin/python install \
        --no-compile --only-binary :all: --require-hashes -r requirements-image.lock \
    && rm requirements-image.lock
COPY app app
COPY deploy/compose/probe.py probe.py
# Bytecode is made once, here, and believed without a look at the source's date: the root file system may be read-only.
# A clone made under a strict umask must still be readable by the image's user.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib app \
    && chmod -R a+rX,go-w /opt/venv /srv/cargoflow

# What a worker needs on top to read documents: Tesseract, PDFium and Pillow, as wheels.
FROM builder AS worker-builder
COPY requirements-ocr.lock .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --disable-pip-version-check --python /opt/venv/bin/python install \
        --no-compile --only-binary :all: --require-hashes -r requirements-ocr.lock \
    && rm requirements-ocr.lock \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib \
    && chmod -R a+rX,go-w /opt/venv

FROM ${PYTHON_IMAGE} AS base
LABEL org.opencontainers.image.title="CargoFlow" \
      org.opencontainers.image.description="A replica (python -m app.main) or a worker (python -m app.worker) of CargoFlow"
# By number, so that an orchestrator can tell that it is not root.
RUN groupadd --gid 10001 cargoflow \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin cargoflow
# MOTOR_MAX_WORKERS: a thread for each connection of the pool, see DB_POOL_MAX.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MOTOR_MAX_WORKERS=50 \
    HOST=0.0.0.0 \
    PORT=8000
WORKDIR /srv/cargoflow
USER 10001:10001
STOPSIGNAL SIGTERM

FROM base AS worker
COPY --from=worker-builder /opt/venv /opt/venv
COPY --from=builder /srv/cargoflow /srv/cargoflow
CMD ["python", "-m", "app.worker"]

FROM base
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /srv/cargoflow /srv/cargoflow
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-IS", "probe.py", "/health"]
CMD ["python", "-m", "app.main"]
