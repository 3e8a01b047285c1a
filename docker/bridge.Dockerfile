# Bridge and control worker: Node only, no native parts.
#   docker build -f docker/bridge.Dockerfile -t brushwork-bridge .
FROM node:24.21.0-bookworm-slim

WORKDIR /app
ENV NODE_ENV=production
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund && npm cache clean --force

COPY temporal.yaml ./
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
CMD ["worker", "--role", "bridge,control"]
