# Two images from one file:
#   docker build --target verify -t compress:verify .   `compress verify` alone: no torchvision, nothing that trains
#   docker build -t compress .                          everything
# BASE is any image with Python 3.11 or newer as `python3`, its venv module and `sh`. TORCH_INDEX is where torch comes
# from: PyTorch's index for the CPU, another of its indices for CUDA, such as https://download.pytorch.org/whl/cu130, or,
# empty, pip's own. `make image` builds both, also without a Docker engine.
ARG BASE=python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PATH=/opt/compress/bin:$PATH
# pip 25.1 is the first that installs a group of pyproject.toml.
RUN python3 -m venv /opt/compress && pip install --upgrade "pip>=25.1"
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./

FROM build AS verify-build
# Named again in each stage that uses it: buildah's stages inherit none from the stage that they start from.
ARG TORCH_INDEX
# onnxruntime's build for GPUs is of use only beside a torch with CUDA, and several times as large.
RUN PIP_INDEX_URL="${TORCH_INDEX}" pip install "torch>=2.9" \
    && if python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; \
       then runtime=onnxruntime-gpu; else runtime=onnxruntime; fi \
    && pip install --group=verify "${runtime}>=1.22"
COPY compressor compressor
COPY exporters exporters
COPY cli cli
COPY recipes recipes
RUN pip install --no-deps . && pip uninstall --yes pip
# A check, from outside the source: what was installed can be imported.
WORKDIR /
RUN python -c 'from exporters import verify' && compress --version

FROM build AS full-build
ARG TORCH_INDEX
RUN PIP_INDEX_URL="${TORCH_INDEX}" pip install "torch>=2.9" "torchvision>=0.24"
COPY compressor compressor
COPY exporters exporters
COPY cli cli
COPY recipes recipes
RUN pip install './[demo,timm,figures]' && pip check
WORKDIR /
RUN compress doctor

FROM ${BASE} AS runtime
ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
# An arbitrary --user has no home, no name and no right to write anywhere but below /tmp and in what is mounted.
ENV PATH=/opt/compress/bin:$PATH \
    HOME=/tmp \
    USER=compress \
    PYTHONDONTWRITEBYTECODE=1 \
    COMPRESS_CACHE_DIR=/tmp/compress-cache \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    ORT_DISABLE_TELEMETRY=1 \
    MPLCONFIGDIR=/tmp/matplotlib
LABEL org.opencontainers.image.title="compress" \
      org.opencontainers.image.description="Re-checks from an ONNX file how robust its image classifier is" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
WORKDIR /models
USER 65532:65532
ENTRYPOINT ["compress"]
CMD ["--help"]

FROM runtime AS verify
COPY --from=verify-build /opt/compress /opt/compress

FROM runtime AS full
COPY --from=full-build /opt/compress /opt/compress
