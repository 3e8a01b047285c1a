// Entry of the trainer process: forked by TrainerProcess, never run by hand. The addon is loaded here and nowhere else.
import { loadAddon } from '../index.ts';
import { serveTrainer } from './serve.ts';

serveTrainer(async () => loadAddon());
