import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { holdOut } from '../../../../native/trainer/held-out-pictures.ts';

const GOLDEN = path.join(import.meta.dirname, '../../../reference/golden/training');

interface GoldenTraining {
  job: { seed: number };
  image_count: number;
  held_out: number[];
}

function pictures(count: number): { name: string }[] {
  return Array.from({ length: count }, (_, i) => ({ name: `picture-${String(i).padStart(3, '0')}.png` }));
}

const namesOf = (each: readonly { name: string }[]): string[] => each.map(({ name }) => name);

describe('holdOut', () => {
  for (const name of ['validation', 'validation_v_prediction']) {
    it(`chooses as the reference does: ${name}`, () => {
      const { job, image_count, held_out } = JSON.parse(
        readFileSync(path.join(GOLDEN, `${name}.json`), 'utf8'),
      ) as GoldenTraining;
      const all = pictures(image_count);
      const { kept, heldOut } = holdOut(all, { seed: job.seed, validationPictures: held_out.length });
      assert.deepEqual(
        heldOut,
        held_out.map((i) => all[i]),
      );
      assert.deepEqual(namesOf(kept), namesOf(all.filter((each) => !heldOut.includes(each))));
    });
  }

  it('depends on seed and names alone, whatever the order', () => {
    const all = pictures(20);
    const { kept, heldOut } = holdOut(all, { seed: 2 ** 53 - 1, validationPictures: 4 });
    assert.deepEqual([kept.length, heldOut.length], [16, 4]);
    assert.deepEqual(holdOut([...all].reverse(), { seed: 2 ** 53 - 1, validationPictures: 4 }), { kept, heldOut });
    assert.deepEqual(namesOf(kept), namesOf(kept).sort());
    const others = holdOut(all, { seed: 1, validationPictures: 4 });
    assert.notDeepEqual(others.heldOut, heldOut);
  });

  it('holds out the same pictures and more when more are asked for', () => {
    const all = pictures(20);
    let before: string[] = [];
    for (let count = 0; count <= 10; count++) {
      const names = namesOf(holdOut(all, { seed: 5, validationPictures: count }).heldOut);
      assert.equal(names.length, count);
      assert.ok(before.every((name) => names.includes(name)));
      before = names;
    }
  });

  it('gives every picture its turn over the seeds', () => {
    const all = pictures(10);
    const counts = new Map(namesOf(all).map((name) => [name, 0]));
    for (let seed = 0; seed < 1000; seed++) {
      for (const { name } of holdOut(all, { seed, validationPictures: 2 }).heldOut)
        counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    // 200 each on average; five standard deviations are 63.
    for (const [name, count] of counts) assert.ok(Math.abs(count - 200) < 63, `${name}: ${count}`);
  });
});
