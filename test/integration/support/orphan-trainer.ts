// Started by trainer-process-faults.test.ts, which kills it: a parent that keeps its trainer busy. Its arguments are the trainer's
// job as JSON, a file for checkpoints, and what to be doing: training, or loading and writing again and again.
import { pino } from 'pino';
import type { TrainerJob } from '../../../common/trainer.ts';
import { TrainerProcess } from '../../../native/trainer/trainer-process.ts';

const [jobText = '', checkpointFile = '', activity = ''] = process.argv.slice(2);
const job = JSON.parse(jobText) as TrainerJob;
const trainer = new TrainerProcess({ device: 'cpu', threadCount: 1, logger: pino({ level: 'silent' }) });
const never = new AbortController().signal;

await trainer.prepare(job, null, never);
process.stdout.write(`${trainer.pid}\n`);
if (activity === 'training') await trainer.train(job.config.epochs, () => undefined, never);
for (let epoch = 1; ; epoch++) {
  await trainer.prepare(job, null, never);
  await trainer.train(1, () => undefined, never);
  await trainer.saveCheckpoint(checkpointFile);
}
