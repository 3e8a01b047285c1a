// Entry of the process that looks at strangers' pictures: forked by PictureInspector, never run by hand.
import { writeFileSync } from 'node:fs';
import sharp from 'sharp';
import { inspectFile, inspectStart } from './data-report.ts';
import { JOB_PICTURE_LIMITS } from './picture.ts';
import type { InspectAnswer, InspectRequest, InspectorMessage } from './picture-inspector.ts';

const end = (): void => void process.kill(process.pid, 'SIGKILL');
process.on('disconnect', end);
if (!process.connected) end();
// Ctrl-C and service managers signal the whole process group; only the parent decides when this ends.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
try {
  // Where memory runs out, this process goes, not the worker that has others' work in hand.
  writeFileSync('/proc/self/oom_score_adj', '1000');
} catch {
  // Only Linux knows it.
}
sharp.cache(false);

async function answer({ directory, name, options, startOf }: InspectRequest): Promise<InspectAnswer> {
  const limits = JOB_PICTURE_LIMITS;
  try {
    if (startOf !== undefined) return { report: await inspectStart(directory, name, startOf.sizeBytes, limits) };
    return { report: await inspectFile(directory, name, { ...options, limits }) };
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error) };
  }
}

const tell = (message: InspectorMessage): void => void process.send?.(message);

// A picture of ours, so that a machine without room for the decoder's threads ends this before a stranger's is blamed.
await sharp({ create: { width: 8, height: 8, channels: 3, background: 'white' } })
  .raw()
  .toBuffer();
tell('ready');
process.on('message', (request: InspectRequest) => {
  void answer(request).then(tell);
});
