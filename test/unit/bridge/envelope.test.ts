import assert from 'node:assert/strict';
import { MAX_MESSAGE_BYTES, addresseeOf, parseJobMessage } from '../../../bridge/envelope.ts';
import { InvalidRequestError } from '../../../common/errors.ts';

const IMAGES = ['s3://bucket/0.jpg', 's3://bucket/1.jpg'];
const TASK = '3f1c2a4e-8f1f-4b8e-9d51-0c3f2d7a1b11';

const ENVELOPE = {
  task_id: TASK,
  type: 'model_training',
  data: {
    style_id: 42,
    images: IMAGES,
    parameters: { epochs: 200, learning_rate: 0.0001, batch_size: 2 },
    tags: ['ink'],
  },
  webhook_url: 'https://api.example.com/api/webhooks/training/42/status',
  callback_url: 'https://api.example.com/old',
  created_at: '2026-08-01T00:00:00Z',
};

const FLAT = { style_id: 42, image_urls: IMAGES, webhook_url: 'https://api.example.com' };

const parse = (value: unknown) => parseJobMessage(Buffer.from(JSON.stringify(value)));
const refuses = (value: unknown, message: RegExp) =>
  assert.throws(() => parse(value), { code: 'INVALID_REQUEST', message });

describe('parseJobMessage', () => {
  it('reads the envelope', () => {
    assert.deepEqual(parse(ENVELOPE), {
      styleId: 42,
      taskId: TASK,
      namesTask: true,
      images: IMAGES,
      tags: ['ink'],
      parameters: { epochs: 200, learningRate: 0.0001, batchSize: 2 },
      webhookUrl: ENVELOPE.webhook_url,
      unknownFields: [],
    });
  });

  it('reads the envelope without its optional fields, absent or null', () => {
    const minimal = { task_id: TASK, data: { style_id: 1, images: IMAGES }, webhook_url: 'https://api.example.com' };
    const nulls = { ...minimal, type: null, data: { ...minimal.data, parameters: null, tags: null }, created_at: null };
    for (const message of [minimal, nulls]) {
      const { tags, parameters, unknownFields } = parse(message);
      assert.deepEqual(
        [tags, parameters, unknownFields],
        [[], { epochs: null, learningRate: null, batchSize: null }, []],
      );
    }
  });

  it('reads the flat shape', () => {
    const { taskId, ...rest } = parse(FLAT);
    assert.match(taskId, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.deepEqual(rest, {
      styleId: 42,
      namesTask: false,
      images: IMAGES,
      tags: [],
      parameters: { epochs: null, learningRate: null, batchSize: null },
      webhookUrl: 'https://api.example.com',
      unknownFields: [],
    });
  });

  it('gives the same flat message the same task id, however it is written', () => {
    const reordered = Buffer.from(
      `{ "webhook_url": "https:\\/\\/api.example.com", "image_urls": ${JSON.stringify(IMAGES)},\n "style_id": 42 }`,
    );
    assert.equal(parseJobMessage(reordered).taskId, parse(FLAT).taskId);
  });

  it('gives another flat message another task id', () => {
    const ids = [FLAT, { ...FLAT, style_id: 43 }, { ...FLAT, image_urls: [...IMAGES].reverse() }].map(
      (m) => parse(m).taskId,
    );
    assert.equal(new Set(ids).size, 3);
  });

  it('keeps the task id of a flat message that has one', () => {
    assert.equal(parse({ ...FLAT, task_id: TASK }).taskId, TASK);
  });

  it('ignores unknown fields but names them', () => {
    const message = { ...ENVELOPE, priority: 3, data: { ...ENVELOPE.data, mood: 'blue', parameters: { rank: 8 } } };
    assert.deepEqual(parse(message).unknownFields, ['priority', 'data.mood', 'data.parameters.rank']);
  });

  it('takes a byte order mark', () => {
    const content = Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(JSON.stringify(FLAT))]);
    assert.equal(parseJobMessage(content).styleId, 42);
  });

  it('leaves to the workflow whether a job makes sense, since only that can tell the backend', () => {
    const data = { style_id: 1, images: [], parameters: { epochs: -5, batch_size: 0.5 } };
    assert.equal(parse({ ...ENVELOPE, data }).parameters.epochs, -5);
  });

  describe('refuses', () => {
    const withData = (changes: object) => ({ ...ENVELOPE, data: { ...ENVELOPE.data, ...changes } });
    const cases: [string, unknown, RegExp][] = [
      ['a list', [], /not a JSON object/],
      ['null', null, /not a JSON object/],
      ['a number', 3, /not a JSON object/],
      ['an empty object', {}, /webhook_url is missing.*image_urls is missing.*style_id is missing/],
      ['another type of message', { ...ENVELOPE, type: 'generate' }, /type must be "model_training"/],
      ['data that is no object', { ...ENVELOPE, data: [] }, /data must be an object/],
      ['null as data', { ...ENVELOPE, data: null }, /data is missing/],
      ['an envelope without task id', { ...ENVELOPE, task_id: undefined }, /task_id is missing/],
      ['a task id that leads out of its folder', { ...ENVELOPE, task_id: '../../x' }, /task_id must be a UUID/],
      ['a task id of dots', { ...ENVELOPE, task_id: '..' }, /task_id must be a UUID/],
      ['an endless task id', { ...ENVELOPE, task_id: 'a'.repeat(129) }, /task_id must be a UUID/],
      ['a style id in quotes', withData({ style_id: '42' }), /data.style_id must be a positive whole number/],
      ['style id 0', withData({ style_id: 0 }), /data.style_id/],
      ['half a style id', withData({ style_id: 1.5 }), /data.style_id/],
      ['a style id that JavaScript rounds', withData({ style_id: 2 ** 53 }), /data.style_id/],
      ['a style id of true', withData({ style_id: true }), /data.style_id/],
      ['images as one text', withData({ images: IMAGES[0] }), /data.images must be a list of texts/],
      ['an image that is no text', withData({ images: [1] }), /data.images/],
      ['an empty image', withData({ images: [''] }), /data.images/],
      ['tags as one text', withData({ tags: 'ink' }), /data.tags/],
      ['parameters as a list', withData({ parameters: [] }), /data.parameters must be an object/],
      ['epochs in quotes', withData({ parameters: { epochs: '200' } }), /data.parameters.epochs must be a number/],
      ['no webhook', { ...FLAT, webhook_url: undefined }, /webhook_url is missing/],
      ['an empty webhook', { ...FLAT, webhook_url: '' }, /webhook_url/],
    ];
    for (const [what, value, message] of cases) {
      it(what, () => refuses(value, message));
    }

    it('several faults at once, each named', () => {
      refuses({ data: { style_id: 'x', images: 3 } }, /task_id.*webhook_url.*data\.images.*data\.style_id/);
    });

    it('bytes that are not UTF-8', () => {
      const content = Buffer.from(JSON.stringify({ ...FLAT, webhook_url: 'https://ü' }), 'latin1');
      assert.throws(() => parseJobMessage(content), { message: /not UTF-8/ });
    });

    it('text that is not JSON', () => {
      for (const text of ['', '{', '{"a":1,}', 'NaN', "{'a': 1}", '{} {}']) {
        assert.throws(() => parseJobMessage(Buffer.from(text)), { message: /not valid JSON/ });
      }
    });

    it('a number that is infinite to JavaScript', () => {
      const text = JSON.stringify(ENVELOPE).replace('"epochs":200', '"epochs":1e999');
      assert.throws(() => parseJobMessage(Buffer.from(text)), { message: /epochs must be a number/ });
    });

    it('a message over the size cap, unread', () => {
      const content = Buffer.alloc(MAX_MESSAGE_BYTES + 1, 0x20);
      assert.throws(() => parseJobMessage(content), { message: /has 1048577 bytes/ });
    });

    it('deep nesting, in bounded time', () => {
      const content = Buffer.from('['.repeat(MAX_MESSAGE_BYTES));
      assert.throws(() => parseJobMessage(content), { message: /nested deeper/ });
    });

    it('only brackets that nest, not those inside texts', () => {
      const tags = ['[[[[[[[[[[[[[[[[[[[[[[', '\\"{{{{{{{{{{{{{{{{{{{{'];
      assert.deepEqual(parse(withData({ tags })).tags, tags);
    });
  });

  it('answers 20,000 damaged messages with a job or INVALID_REQUEST, never with anything else', () => {
    const random = generator(20260807);
    const seeds = [ENVELOPE, FLAT].map((message) => JSON.stringify(message));
    let refused = 0;
    for (let round = 0; round < 20_000; round++) {
      const content = Buffer.from(seeds[round % 2] ?? '');
      for (let change = 0; change <= random() % 4; change++) content[random() % content.length] = random() % 256;
      const damaged = random() % 5 === 0 ? content.subarray(0, random() % content.length) : content;
      try {
        const job = parseJobMessage(damaged);
        assert.ok(Number.isSafeInteger(job.styleId) && job.styleId > 0 && job.taskId !== '' && job.webhookUrl !== '');
        assert.match(job.taskId, /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/);
      } catch (error) {
        assert.ok(error instanceof InvalidRequestError, `round ${round}: ${String(error)}`);
        refused++;
      }
    }
    assert.ok(refused > 2000 && refused < 20_000, `${refused} refused`);
  });
});

/** Park–Miller: the same numbers on every run. */
function generator(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48_271) % 2_147_483_647);
}

describe('addresseeOf', () => {
  const of = (message: unknown) => addresseeOf(Buffer.from(JSON.stringify(message)));

  it('finds style and backend in messages with other faults, of either shape', () => {
    const expected = { styleId: 7, webhookUrl: 'https://api.example.com' };
    assert.deepEqual(of({ task_id: 5, data: { style_id: 7 }, webhook_url: 'https://api.example.com' }), expected);
    assert.deepEqual(of({ style_id: 7, image_urls: 'none', webhook_url: 'https://api.example.com' }), expected);
    assert.deepEqual(of({ style_id: 7 }), { styleId: 7, webhookUrl: '' });
  });

  it('finds nobody in what names no style or can not be read', () => {
    for (const message of [{}, { style_id: '7' }, { data: {} }, [], 'text', { style_id: -1 }])
      assert.equal(of(message), null);
    assert.equal(addresseeOf(Buffer.from('{"style_id": 7')), null);
  });
});
