# The service with its embedded model. Two targets: `serve` (the default, last in this file) computes with ONNX Runtime and has no
# torch; `torch` has it besides, for GPUs and for bundles without graphs. Both run as nobody in particular, on a read-only root file
# system, without any capability, have no shell and no package manager, and need no network but their port.
#
#   docker build .                                  EXTRAS=redis,otel as --build-arg adds extras of pyproject.toml; heif: HEIC (GPL,
#                                                 docs/decisions/0021)
#   docker build --target torch .                   PIP_EXTRA_INDEX_URL as --build-arg says where a build of torch for CPUs is

FROM python:3.11-slim-bookworm AS base

FROM base AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv --without-pip /opt/polymodal
# First what changes rarely, so that a change of the code reuses this layer, in builders and wherever the image is pulled.
COPY pyproject.toml constraints.txt ./
COPY scripts/serve_requirements.py scripts/image_slim.py scripts/
ARG EXTRAS=""
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/serve_requirements.py "$EXTRAS" > requirements.txt \
    && pip --python /opt/polymodal/bin/python install --no-compile --requirement requirements.txt --constraint constraints.txt \
    && /opt/polymodal/bin/python scripts/image_slim.py /opt/polymodal/lib/python3.11/site-packages requirements.txt \
    && find /opt/polymodal/lib -name '*.so*' -type f ! -path '*.libs/*' -exec strip --strip-debug {} +

FROM packages AS packages-torch
ARG PIP_EXTRA_INDEX_URL=""
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/polymodal/bin/python install --no-compile --root /torch torch --constraint constraints.txt \
    && /opt/polymodal/bin/python scripts/image_slim.py /torch/opt/polymodal/lib/python3.11/site-packages

FROM packages AS project
COPY README.md LICENSE ./
COPY app app
COPY model model
COPY polymodal polymodal
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/polymodal/bin/python install --no-compile --no-deps --root /project .

# Debian and Python without what only a shell, a package manager or a developer would use. The list of Debian's packages stays, for
# those who scan images, and so do all licences.
FROM base AS system
# hadolint ignore=SC2114
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin polymodal \
    && find /usr/share/doc -type f ! -name copyright -delete \
    && for each in ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo 'config-*' 'site-packages/*' 'lib-dynload/*test*.so'; do \
        rm -rf /usr/local/lib/python3.11/$each; done \
    && rm -rf /usr/local/include /usr/local/share /usr/local/lib/pkgconfig /usr/local/bin/pip* /usr/local/bin/*config* \
    && rm -rf /usr/lib/apt /usr/lib/*/perl-base /usr/lib/*/gconv /usr/lib/*/libapt-* /usr/share/locale /usr/share/man /usr/share/info \
    && rm -rf /etc/apt /etc/pip.conf /var/lib/apt /var/cache/* /var/log/* /root/.cache /tmp/* \
    && rm -rf /usr/bin /usr/sbin

# From nothing, so that what was removed is neither in the image nor in a layer below it. Nothing below this line can use a shell.
FROM scratch AS image
# hadolint ignore=DL3067
COPY --from=system / /
COPY --from=packages /opt/polymodal /opt/polymodal
COPY --from=project /project/ /
ENV PATH=/opt/polymodal/bin:/usr/local/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONPYCACHEPREFIX=/opt/bytecode \
    ORT_DISABLE_TELEMETRY=1 \
    POLYMODAL_HOST=0.0.0.0
EXPOSE 8000
# Ready, not merely live: what asks Docker for a container's health wants to know whether to send requests.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('localhost', int(os.environ.get('POLYMODAL_PORT') or 8000), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["polymodal", "serve"]
LABEL org.opencontainers.image.title="Polymodal" \
      org.opencontainers.image.description="A REST inference service for multimodal models: scores and embeddings of images and texts; any input may be missing." \
      org.opencontainers.image.licenses="Apache-2.0"

# Serves and asks, in the very files that ship: a build whose image can't serve fails. Its bytecode is kept, and no other: at run
# time, on a read-only file system, it could not be.
FROM image AS trial
RUN --mount=type=bind,source=scripts/image_trial.py,target=/trial.py ["python", "/trial.py", "auto", "onnx"]

FROM image AS image-torch
COPY --from=packages-torch /torch/ /

FROM image-torch AS trial-torch
RUN --mount=type=bind,source=scripts/image_trial.py,target=/trial.py ["python", "/trial.py", "torch", "auto"]

FROM image-torch AS torch
COPY --from=trial-torch /opt/bytecode /opt/bytecode
ENV PYTHONDONTWRITEBYTECODE=1
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# Last, because every build has other values: `make image-torch` gives them.
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
# For polymodal_build_info.
ENV POLYMODAL_REVISION="$REVISION"

FROM image AS serve
COPY --from=trial /opt/bytecode /opt/bytecode
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
# For polymodal_build_info.
ENV POLYMODAL_REVISION="$REVISION"
