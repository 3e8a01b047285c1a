// A process that looks at pictures as a decoder with a fault would: pictures by these names end it.
import type { InspectRequest } from '../../../../native/trainer/picture-inspector.ts';
import { faultyReport } from '../../../../native/trainer/data-report.ts';

let seen = 0;
process.send?.('ready');
process.on('disconnect', () => process.exit());
process.on('message', ({ name }: InspectRequest) => {
  seen += 1;
  if (name === 'segfault.png') process.kill(process.pid, 'SIGSEGV');
  else if (name === 'killed.png') process.kill(process.pid, 'SIGKILL');
  else if (name === 'second.png' && seen === 2) process.kill(process.pid, 'SIGSEGV');
  else if (name === 'secret.png')
    process.send?.({ report: faultyReport(name, process.env['INTERNAL_API_TOKEN'] ?? 'none') });
  else if (name !== 'stuck.png') process.send?.({ report: faultyReport(name, `seen ${seen}`) });
});
