import { randomOf } from './support/random.ts';
import type { Scene } from './support/scene.ts';

/** Programs that operators have. */
export type Tool = 'temporal' | 'tctl';

/** What an operator may do to a job. A reset is to a type of point, or to an event's number. */
export type Button = 'cancel' | 'terminate' | `signal ${string}` | `reset ${string}`;

const OPTIONS: Record<Tool, { id: string; type: string; event: string }> = {
  temporal: { id: '--workflow-id', type: '--type', event: '--event-id' },
  tctl: { id: '--workflow_id', type: '--reset_type', event: '--event_id' },
};

/** With which program the buttons of a case are pressed: about every second one with each, whatever the seed, unless it says so itself. */
export function toolOf(caseId: string): Tool {
  if (caseId.endsWith(', by temporal')) return 'temporal';
  if (caseId.endsWith(', by tctl')) return 'tctl';
  return randomOf(`tool of ${caseId}`)() < 0.5 ? 'temporal' : 'tctl';
}

/** Presses a button; fails where the program says that it could not be done. */
export async function press(scene: Scene, button: Button): Promise<void> {
  const [verb = '', what = ''] = button.split(' ');
  const tool = toolOf(scene.caseId);
  const { id, type, event } = OPTIONS[tool];
  const words = ['workflow', verb, id, `train-style-${scene.job.styleId}`];
  if (verb === 'signal') words.push('--name', what);
  if (verb === 'reset') words.push(/^\d+$/.test(what) ? event : type, what);
  if (verb === 'reset' || verb === 'terminate') words.push('--reason', 'a fault test');
  await scene.world[tool](...words);
}
