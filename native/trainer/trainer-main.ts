// Entry of the trainer process: forked by TrainerProcess, never run by hand. The addon is loaded here and nowhere else.
import { serveTrainer } from './serve.ts';

serveTrainer(async () => {
  // OpenMP reads it when libtorch is loaded. Threads that spin while they wait slow a step down twentyfold as soon as
  // anything else wants the cores; threads that sleep cost next to nothing on an idle machine.
  // eslint-disable-next-line no-restricted-properties -- set for a library, not read
  process.env['OMP_WAIT_POLICY'] ??= 'passive';
  const { loadAddon } = await import('../index.ts');
  return loadAddon();
});
