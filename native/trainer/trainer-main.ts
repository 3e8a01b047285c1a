// Entry of the trainer process: forked by TrainerProcess, never run by hand. The addon is loaded here and nowhere else.
import { loadAddon } from '../index.ts';
import { serveTrainer } from './serve.ts';

serveTrainer(async () => {
  const addon = loadAddon();
  // A trainer that is stopped, or hangs, can't notice by itself that its parent is gone: it would keep the GPU for ever.
  addon.endWithParent();
  return addon;
});
