# One image, two commands: `python -m hooks` (the default) and `python -m gateway`.
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && pip install --no-cache-dir "uv>=0.5"
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/app UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-install-project
COPY README.md LICENSE ./
COPY hooks hooks
COPY gateway gateway
COPY program program
# The gateway's data path is compiled: pyproject.toml says which modules.
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=1 uv sync --locked --no-dev --no-editable

FROM python:3.13-slim
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080 8081 8082 8083
CMD ["python", "-m", "hooks"]
