# One image, two commands: `python -m hooks` (the default) and `python -m gateway`.
# The digest is that of the index of all platforms. Another base needs Debian and Python 3.13 with pip and its headers.
ARG BASE=python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
RUN apt-get update && apt-get install -y --no-install-recommends binutils gcc libc6-dev \
  && pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/app UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1
COPY pyproject.toml uv.lock ./
# What no program loads goes: classes and calls that the Kubernetes client has for each kind (the programs send and read
# JSON; the packages stay importable), tests, sources of extensions and their symbols. Bytecode is compiled once, and it
# is not compared with the times of files.
RUN uv sync --locked --no-dev --extra otlp --no-install-project \
  && find /app/lib/python*/site-packages/kubernetes -type f -not -name __init__.py \
    \( -path '*/client/api/*' -o -path '*/client/models/*' \) -delete \
  && find /app/lib \( -type d \( -name tests -o -name test \) -o -type f \( -name '*_test.py' -o -name '*.pyi' \
    -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.c' -o -name '*.h' \) \) -prune -exec rm -r '{}' + \
  && find /app/lib -name '*.so*' -type f -exec strip --strip-debug '{}' + \
  && /app/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app/lib
COPY README.md LICENSE ./
COPY hooks hooks
COPY gateway gateway
COPY program program
# The gateway's data path is compiled: pyproject.toml says which modules.
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=1 uv sync --locked --no-dev --extra otlp --no-editable \
  && cd /app/lib/python*/site-packages \
  && /app/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash hooks gateway program \
  && rm /app/.lock

FROM ${BASE}
ARG BASE
RUN PYTHONDONTWRITEBYTECODE=1 pip uninstall --yes --no-cache-dir --root-user-action=ignore pip \
  && rm -rf "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/ensurepip"
COPY --from=build /app /app
# Kubernetes' client asks for a home as it is imported, and there may be none for a user that the cluster chooses.
ENV PATH=/app/bin:$PATH HOME=/ PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080 8081 8082 8083
CMD ["python", "-m", "hooks"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="beamlit-controller" \
  org.opencontainers.image.description="Serve models in your own cluster and offload to a remote backend when local capacity is not enough." \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.source="https://github.com/beamlit/beamlit-controller" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}" \
  org.opencontainers.image.base.name="${BASE}"
