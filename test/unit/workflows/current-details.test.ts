import assert from 'node:assert/strict';
import type { TrainStatus } from '../../../common/types.ts';
import { currentDetails } from '../../../workflows/current-details.ts';

const status: TrainStatus = {
  phase: 'training',
  reason: null,
  styleId: 42,
  taskId: 'task',
  epoch: 30,
  totalEpochs: 200,
  loss: 0.123456,
  validationLoss: null,
  earlyStop: null,
  host: 'gpu-7',
  gpu: 'NVIDIA L4',
  lastCheckpoint: { manifestKey: 'k', epoch: 20, step: 240, fingerprint: 'f' },
  podLosses: 1,
  lastError: null,
  dataDoubts: [],
  dataReport: null,
};

describe('currentDetails', () => {
  it('says what the job does, how far it is, where, and what is safe', () => {
    const text = currentDetails(status);
    for (const part of [
      '### Style 42: Training',
      '| Epoch | 30 of 200 |',
      '| Loss | 0.1235 |',
      '| Pod | gpu-7 (NVIDIA L4) |',
      '| Last checkpoint | epoch 20 |',
      '| Pods lost | 1 |',
    ]) {
      assert.ok(text.includes(part), `${part} in ${text}`);
    }
    assert.ok(!text.includes('Last error'));
  });

  it('names the contact sheet of the last checkpoint', () => {
    assert.ok(!currentDetails(status).includes('Contact sheet'));
    const lastCheckpoint = { manifestKey: 'k', epoch: 20, step: 240, fingerprint: 'f', previewKey: 'a/b.png' };
    assert.ok(currentDetails({ ...status, lastCheckpoint }).endsWith('| Contact sheet | a/b.png |'));
  });

  it('says what was measured on held-out pictures and why training ended early, where there is something to say', () => {
    assert.ok(!/Validation|early/.test(currentDetails(status)));
    const text = currentDetails({ ...status, validationLoss: 0.123456, earlyStop: 'No better one.' });
    assert.ok(text.includes('| Validation loss | 0.1235 |'));
    assert.ok(text.includes('| Stopped early | No better one. |'));
  });

  it('says what it waits for and the last error', () => {
    const lastError = { code: 'STORAGE_UNAVAILABLE', message: 'down | out' };
    const text = currentDetails({ ...status, phase: 'paused', reason: 'Because.', host: null, gpu: null, lastError });
    assert.ok(text.includes('Because.'));
    assert.ok(text.includes('| Pod | none |'));
    assert.ok(text.includes('| Last error | STORAGE_UNAVAILABLE: down \\| out |'));
  });

  it('says where the data report lies', () => {
    assert.ok(!currentDetails(status).includes('Data report'));
    const dataReport = 's3://bucket/checkpoints/style_42/task/data-report.json';
    assert.ok(currentDetails({ ...status, dataReport }).includes(`| Data report | ${dataReport} |`));
  });

  it('says what is doubtful about the pictures, whatever they are called', () => {
    assert.ok(!currentDetails(status).includes('Doubtful'));
    const text = currentDetails({ ...status, dataDoubts: ['a_b*.png is of nearly one colour', 'c\nd.png looks odd'] });
    assert.ok(
      text.endsWith('Doubtful about the pictures:\n\n- a\\_b\\*.png is of nearly one colour\n- c d.png looks odd'),
      text,
    );
  });
});
