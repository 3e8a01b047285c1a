# Pod worker with CUDA. The libraries of CUDA come with the torch wheel's own dependencies, so the host needs only the NVIDIA
# driver (for CUDA 13) and the NVIDIA container toolkit.
#   docker build -f docker/worker.Dockerfile -t brushwork-pod .
FROM python:3.11.14-slim-bookworm AS libtorch
RUN pip install --no-cache-dir --no-compile --target /opt/libtorch \
      torch==2.11.0 nlohmann-json==3.12.0 \
 && mkdir /opt/libtorch/include \
 && mv /opt/libtorch/nlohmann_json/include/nlohmann /opt/libtorch/include/ \
 && cd /opt/libtorch && find . -mindepth 1 -maxdepth 1 ! -name torch ! -name nvidia ! -name include -exec rm -r {} + \
 && find torch -mindepth 1 -maxdepth 1 ! -name include ! -name lib -exec rm -r {} +

FROM node:24.21.0-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ ninja-build \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund
COPY --from=libtorch /opt/libtorch /opt/libtorch
COPY native ./native
RUN node_modules/.bin/cmake-js build --directory native --out build \
      --CDLIBTORCH=/opt/libtorch/torch --CDNLOHMANN_INCLUDE_DIR=/opt/libtorch/include \
      --CDBRUSHWORK_CUDA=ON --CDBRUSHWORK_TESTS=OFF --parallel "$(nproc)"

FROM node:24.21.0-bookworm-slim
# Without a GPU it must not start: it would take jobs and train them on the CPU.
ENV NODE_ENV=production BRUSHWORK_DEVICE=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
COPY --from=libtorch /opt/libtorch/torch/lib /opt/libtorch/torch/lib
COPY --from=libtorch /opt/libtorch/nvidia /opt/libtorch/nvidia
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/build/Release ./build/Release
COPY package.json temporal.yaml ./
COPY workflows ./workflows
COPY activities ./activities
COPY bridge ./bridge
COPY worker ./worker
COPY common ./common
COPY cli ./cli
COPY native/*.ts native/package.json ./native/
COPY native/trainer ./native/trainer

USER node
ENTRYPOINT ["node", "cli/main.ts"]
CMD ["worker", "--role", "pod"]
