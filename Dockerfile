# Build:   docker build -t direct-gateway .
# Prepare: docker run --rm -v gateway:/data direct-gateway init /data --domain direct.example.org \
#              --address front-desk --host 0.0.0.0
# Run:     docker run -d --name gateway -v gateway:/data -p 25:2525 -p 143:1143 -p 993:1993 direct-gateway
#
# The root file system may be read-only (--read-only): /data is the only place that is written.

FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/gateway
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN /opt/gateway/bin/pip install --no-cache-dir --no-compile '.[postgresql]' \
    && /opt/gateway/bin/pip uninstall --yes pip

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin gateway \
    && install --directory --owner=gateway --group=gateway --mode=0700 /data
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DIRECTGW_CONFIG=/data/gateway.toml
USER gateway
WORKDIR /data
VOLUME /data
EXPOSE 2525 1143 1993
# The readiness check opens no port of its own and needs no curl. Settings errors end with status 2.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["direct-gateway", "health", "--ready"]
ENTRYPOINT ["direct-gateway"]
CMD ["serve"]
