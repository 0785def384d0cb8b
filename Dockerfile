# The environment of the workflow's jobs, from requirements.lock. Not built on the machines that this
# was written on. Apptainer, for clusters without docker:
#     docker build -t discovla . && apptainer build discovla.sif docker-daemon://discovla:latest
# The CUDA libraries come with torch; the host brings the driver (docker --gpus all, apptainer --nv).
FROM python:3.11-slim-bookworm

# git: results name the commit of the code that made them.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git=1:2.39.* \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/discovla
COPY requirements.lock ./
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip sync --system --no-cache requirements.lock

# The workflow takes the package from its own folder; this copy serves commands outside of it.
COPY pyproject.toml README.md LICENSE ./
COPY discovla ./discovla
COPY workflow/schemas ./workflow/schemas
COPY config ./config
RUN pip install --no-cache-dir --no-deps --editable .

# Nothing is written below /root in a container of another user.
ENV HF_HOME=/tmp/huggingface MPLCONFIGDIR=/tmp/matplotlib
