import assert from 'node:assert/strict';
import { checkJobRequest } from '../../../common/job-request.ts';
import type { TrainStyleInput } from '../../../common/types.ts';

const images = (count: number) => Array.from({ length: count }, (_, index) => `s3://bucket/${index}.jpg`);

function input(changes: Partial<TrainStyleInput>): TrainStyleInput {
  return {
    styleId: 1,
    taskId: 'task',
    images: images(12),
    tags: [],
    parameters: { epochs: null, learningRate: null, batchSize: null },
    expectedEpochs: 100,
    webhookOrigin: 'https://api.example.com',
    settings: {} as TrainStyleInput['settings'],
    ...changes,
  };
}

describe('checkJobRequest', () => {
  for (const count of [10, 100]) {
    it(`takes ${count} images`, () => checkJobRequest(input({ images: images(count) })));
  }

  for (const count of [0, 9]) {
    it(`refuses ${count} images as too few`, () => {
      assert.throws(() => checkJobRequest(input({ images: images(count) })), { code: 'TOO_FEW_IMAGES' });
    });
  }

  const refused: [string, Partial<TrainStyleInput>, RegExp][] = [
    ['more than 100 images', { images: images(101) }, /101 images are too many/],
    ['the same image twice', { images: [...images(10), 's3://bucket/0.jpg'] }, /1 image URIs are named twice/],
    ['an endless URI', { images: [...images(10), `s3://b/${'a'.repeat(5000)}`] }, /longer than 4096/],
    ['a flood of tags', { tags: Array.from({ length: 201 }, () => 'tag') }, /201 tags/],
    ['an endless tag', { tags: ['a'.repeat(501)] }, /a tag is longer/],
    ['no epochs', { parameters: { epochs: 0, learningRate: null, batchSize: null } }, /epochs must be/],
    ['half an epoch', { parameters: { epochs: 10.5, learningRate: null, batchSize: null } }, /epochs must be/],
    ['a negative learning rate', { parameters: { epochs: null, learningRate: -1, batchSize: null } }, /learning_rate/],
    ['an enormous batch', { parameters: { epochs: null, learningRate: null, batchSize: 1000 } }, /batch_size/],
  ];
  for (const [what, changes, message] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(() => checkJobRequest(input(changes)), { code: 'INVALID_REQUEST', message });
    });
  }

  it('names all faults at once', () => {
    const parameters = { epochs: -1, learningRate: 5, batchSize: null };
    assert.throws(
      () => checkJobRequest(input({ parameters, tags: ['a'.repeat(501)] })),
      (error: Error) => ['epochs', 'learning_rate', 'tag'].every((word) => error.message.includes(word)),
    );
  });
});
