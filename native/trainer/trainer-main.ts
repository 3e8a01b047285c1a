// Entry of the trainer process: forked by TrainerProcess, never run by hand. The addon is loaded here and nowhere else.
import { serveTrainer } from './serve.ts';

serveTrainer(async () => {
  const { loadAddon } = await import('../index.ts');
  return loadAddon();
});
