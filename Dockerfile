# The service with its embedded model, without what only training needs: no torch, no compiler. Runs as nobody in
# particular, on a read-only root file system, without any capability, and needs no network but its port.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv --without-pip /opt/polymodal
# First what changes rarely, so that a change of the code reuses this layer.
COPY pyproject.toml constraints.txt ./
COPY scripts/serve_requirements.py scripts/
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/serve_requirements.py > requirements.txt \
    && pip --python /opt/polymodal/bin/python install --requirement requirements.txt --constraint constraints.txt
COPY README.md LICENSE ./
COPY app app
COPY model model
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/polymodal/bin/python install --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin polymodal
COPY --from=build /opt/polymodal /opt/polymodal
ENV PATH=/opt/polymodal/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    POLYMODAL_HOST=0.0.0.0
# The base image has no bytecode of the standard library. Importing once writes what the service needs of it, which at
# run time it could not keep; it also shows, while building, that everything is there.
RUN python -c "import app.main, model.runtimes.onnx_runtime"
ENV PYTHONDONTWRITEBYTECODE=1
# Nothing that serving doesn't need: no shell and its tools, no package manager, no file that runs with another's rights. The list of
# Debian's packages stays, for those who scan images. Nothing below this line can use a shell.
RUN /usr/local/bin/python -m pip --disable-pip-version-check uninstall --yes --quiet --root-user-action=ignore pip \
    && rm -rf /usr/local/lib/python3.11/ensurepip /usr/local/lib/python3.11/idlelib /usr/lib/apt /var/lib/apt /var/cache/* \
    && rm -rf /usr/bin /usr/sbin
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
# Ready, not merely live: what asks Docker for a container's health wants to know whether to send requests.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('localhost', int(os.environ.get('POLYMODAL_PORT') or 8000), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["polymodal", "serve"]

# Last, because every build has other values: `make image` gives them.
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Polymodal" \
      org.opencontainers.image.description="A REST inference microservice that classifies an image with its text; either may be missing." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
