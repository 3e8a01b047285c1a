// Entry of the trainer process: forked by TrainerProcess, never run by hand. The addon is loaded here and nowhere else.
import { serveTrainer } from './serve.ts';

serveTrainer(async ({ cudaVisibleDevices }) => {
  /* eslint-disable no-restricted-properties -- set for libraries, not read */
  // OpenMP reads it when libtorch is loaded. Threads that spin while they wait slow a step down twentyfold as soon as
  // anything else wants the cores; threads that sleep cost next to nothing on an idle machine.
  process.env['OMP_WAIT_POLICY'] ??= 'passive';
  // CUDA reads it at its first call: it may come from a file that this process has not seen.
  if (cudaVisibleDevices !== null) process.env['CUDA_VISIBLE_DEVICES'] = cudaVisibleDevices;
  /* eslint-enable no-restricted-properties */
  const { loadAddon } = await import('../index.ts');
  return loadAddon();
});
