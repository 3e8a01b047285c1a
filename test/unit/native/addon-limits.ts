// Started by addon-errors.test.ts: brings the addon to its limits in a process that would end if it could not stand it.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { InvalidRequestError } from '../../../common/errors.ts';
import { loadAddon } from '../../../native/index.ts';
import { image, job } from './support/addon.ts';

const addon = loadAddon();

/** Trainings without a job, refused on four threads while this one starts more of them. */
async function refuseMany(): Promise<void> {
  const trainers = Array.from({ length: 4 }, () => new addon.Trainer({ device: 'cpu', threadCount: 1 }));
  let refused = 0;
  for (let round = 0; round < 1000; ++round) {
    const trainings = trainers.flatMap((trainer) =>
      Array.from({ length: 30 }, () => trainer.train(1, () => undefined)),
    );
    for (const result of await Promise.allSettled(trainings)) {
      refused += Number(result.status === 'rejected' && result.reason instanceof InvalidRequestError);
    }
  }
  console.log(`${refused} refused`);
}

/** A picture of which the process may have no copy. */
async function runOutOfMemory(): Promise<void> {
  const trainer = new addon.Trainer({ device: 'cpu', threadCount: 1 });
  const pixels = new Uint8Array(512 * 2 ** 20);
  const sizeKiB = Number(/VmSize:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
  execFileSync('prlimit', ['--pid', String(process.pid), `--as=${sizeKiB * 1024 + pixels.length / 4}`]);
  try {
    await trainer.startJob({ ...job(), images: [{ ...image(0), pixels }] });
  } catch (error) {
    console.log(error instanceof Error ? error.name : error);
  }
}

await (process.argv[2] === 'refusals' ? refuseMany() : runOutOfMemory());
