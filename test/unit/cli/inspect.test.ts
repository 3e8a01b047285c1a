import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import type { DataReport } from '../../../native/trainer/data-report.ts';

const CLI = path.join(import.meta.dirname, '../../../cli/main.ts');
const FIXTURES = path.join(import.meta.dirname, '../../fixtures/pictures');

describe('brushwork inspect', function () {
  this.timeout(30_000);
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-inspect-'));
    for (const name of ['cat', 'coffee']) copyFileSync(path.join(FIXTURES, `${name}.jpg`), inside(`${name}.jpg`));
    writeFileSync(inside('cat.txt'), 'a cat\u001b[31m');
    writeFileSync(inside('config.json'), '{"resolution": 256, "trigger_word": "inkwash", "epochs": 5, "repeats": 3}');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const inside = (name: string) => path.join(directory, name);

  function inspect(...args: string[]) {
    // What a developer has set for the service must not count here.
    const kept = Object.entries(process.env).filter(([name]) => !/^(BRUSHWORK_|LOG_LEVEL$)/.test(name));
    return spawnSync(process.execPath, [CLI, 'inspect', '--images', directory, ...args], {
      encoding: 'utf8',
      env: Object.fromEntries(kept),
      cwd: directory,
    });
  }

  it('prints a table that tells of each picture, and what concerns all', () => {
    const { status, stdout, stderr } = inspect('--config', inside('config.json'), '--caption', 'a picture');
    assert.equal(stderr, '');
    assert.equal(
      stdout,
      [
        'picture     size             format     caption               what is done to it',
        '----------  ---------------  ---------  --------------------  ------------------',
        'cat.jpg     384×384, 22 KiB  jpeg, RGB  inkwash, a cat [31m   reduced to 256×256',
        'coffee.jpg  384×384, 23 KiB  jpeg, RGB  (inkwash, a picture)  reduced to 256×256',
        '? 2 pictures: the service takes 10 to 100',
        '? 1 of 2 pictures have no caption of their own, unlike the others',
        '',
        "2 pictures: 2 good. Captions in brackets are not the picture's own. 5 epochs make 30 steps.",
        '',
      ].join('\n'),
    );
    assert.equal(status, 0);
  });

  it('tells which pictures are trained in which size', async () => {
    const image = sharp(path.join(FIXTURES, 'palace.jpg'));
    for (const [name, width] of [
      ['wide-1', 400],
      ['wide-2', 390],
    ] as const) {
      await image
        .clone()
        .resize(width, 240, { fit: 'fill' })
        .png()
        .toFile(inside(`${name}.png`));
    }
    const config = { resolution: 256, resize_mode: 'bucket', epochs: 2, repeats: 3, batch_size: 4 };
    writeFileSync(inside('config.json'), JSON.stringify(config));
    const { stdout } = inspect('--config', inside('config.json'));
    assert.match(stdout, /^wide-1\.png .* reduced to 320×192$/m);
    assert.match(stdout, /^wide-2\.png .* cut to the middle 390×234, 2\.5 % lost, reduced to 320×192$/m);
    assert.match(stdout, /^Trained in 2 sizes: 2 of 256×256, 2 of 320×192\.$/m);
    // 6 pictures of each size are 2 batches, a short one among them.
    assert.match(stdout, /^4 pictures: .* 2 epochs make 8 steps\.$/m);
    const { pictures } = JSON.parse(inspect('--config', inside('config.json'), '--json').stdout) as DataReport;
    assert.deepEqual(pictures.at(-1)?.trainedSize, { widthPx: 320, heightPx: 192 });
  });

  it('tells which pictures will be held out, and counts steps without them', () => {
    writeFileSync(inside('config.json'), '{"resolution": 256, "epochs": 5, "repeats": 3, "validation_pictures": 1}');
    const { stdout } = inspect('--config', inside('config.json'));
    assert.equal(stdout.match(/reduced to 256×256, held out of training$/gm)?.length, 1);
    assert.match(stdout, /5 epochs without the 1 held out make 15 steps\.$/m);
  });

  it('prints the same as JSON, and fails where a picture can not be used', () => {
    writeFileSync(inside('coffee.jpg'), readFileSync(inside('coffee.jpg')).subarray(0, 5000));
    const table = inspect();
    assert.equal(table.status, 1);
    assert.match(table.stdout, /^ {2}! can't be decoded \(.*\)$/m);
    assert.match(table.stdout, /^2 pictures: 0 good, 1 doubtful, 1 that can't be used\. .* Replace or remove/m);
    const { status, stdout } = inspect('--json');
    assert.equal(status, 1);
    const { pictures, doubts } = JSON.parse(stdout) as DataReport;
    const found = pictures.map(({ name, faults, sizeBytes }) => [name, faults.length, sizeBytes]);
    assert.deepEqual(found, [
      ['cat.jpg', 0, readFileSync(inside('cat.jpg')).length],
      ['coffee.jpg', 1, 5000],
    ]);
    assert.ok(doubts.length > 0);
  });

  it('says what is wrong with the configuration file, in words', () => {
    for (const [file, words] of [
      ['none.json', 'does not exist'],
      ['.', 'is a directory, not a file'],
    ] as const) {
      const { status, stderr } = inspect('--config', inside(file));
      assert.equal(status, 1);
      assert.equal(stderr, `INVALID_REQUEST: The configuration file ${inside(file)} ${words}: check --config.\n`);
    }
  });

  it('says in one line that the configuration file is no JSON, or contradicts itself', () => {
    for (const [text, complaint] of [
      ['hello\n', /^INVALID_REQUEST: .* can't be read as JSON: .*"hello " .*\. Mend the file, or check --config\.\n$/],
      [
        '{"text_encoder_learning_rate": 0.00005}',
        /^INVALID_REQUEST: .* text_encoder_learning_rate is 0\.00005, but train_text_encoder is false, .*\n$/,
      ],
    ] as const) {
      writeFileSync(inside('config.json'), text);
      const { status, stderr } = inspect('--config', inside('config.json'));
      assert.equal(status, 1);
      assert.match(stderr, complaint);
    }
  });

  it('says so where there is nothing to look at', () => {
    for (const name of ['cat.jpg', 'coffee.jpg']) rmSync(inside(name));
    const { status, stderr } = inspect();
    assert.equal(status, 1);
    assert.match(stderr, /^TOO_FEW_IMAGES: .* holds no picture/);
  });
});
