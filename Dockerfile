# A first, plain image: everything, in one stage, as a user without rights.
#   docker build -t compress .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/models" compress verify model.onnx
FROM python:3.11-slim

# torch's exporter asks for a user name and a home; an arbitrary --user has neither.
ENV HOME=/tmp \
    USER=compress \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    COMPRESS_CACHE_DIR=/tmp/compress-cache \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY compressor compressor
COPY exporters exporters
COPY cli cli
COPY recipes recipes
RUN pip install '.[demo]' && rm -rf /src

WORKDIR /models
USER 65532:65532
ENTRYPOINT ["compress"]
CMD ["--help"]
