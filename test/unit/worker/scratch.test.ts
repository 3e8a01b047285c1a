import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import path from 'node:path';
import { openScratch } from '../../../worker/scratch.ts';

/** No process has this id: it is beyond the largest that Linux gives. */
const DEAD_PID = 4_194_305;

describe('openScratch', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'brushwork-scratch-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  it('makes a directory of its own', async () => {
    const directory = await openScratch(path.join(root, 'work'), 'pod');
    assert.ok(existsSync(directory));
  });

  it('removes what a killed pod left behind', async () => {
    mkdirSync(path.join(root, `pod-${hostname()}-${DEAD_PID}-abc`, 'job'), { recursive: true });
    await openScratch(root, 'pod');
    assert.ok(!existsSync(path.join(root, `pod-${hostname()}-${DEAD_PID}-abc`)));
  });

  it('leaves the directory of another role of the same process alone', async () => {
    const pod = await openScratch(root, 'pod');
    const control = await openScratch(root, 'control');
    assert.ok(existsSync(pod));
    assert.ok(existsSync(control));
    await openScratch(root, 'control');
    assert.ok(!existsSync(control));
  });

  it('leaves those of other containers alone that share the work directory: all of them have the same process id', async () => {
    const neighbour = await openScratch(root, 'pod', 'container-1');
    await openScratch(root, 'pod', 'container-2');
    await openScratch(root, 'pod', 'container');
    assert.ok(existsSync(neighbour));
  });

  it('removes what its own container left behind in the life before', async () => {
    const left = path.join(root, `pod-${hostname()}-${process.pid}-abc`);
    mkdirSync(left);
    await openScratch(root, 'pod');
    assert.ok(!existsSync(left));
  });

  it('removes what lost containers and earlier versions left on a disk that all share, after a week', async () => {
    const day = (count: number) => new Date(Date.now() - count * 24 * 3_600_000);
    const names = ['pod-lost-container-1-abc', `pod-${DEAD_PID}-abc`, 'control-lost-container-1-abc', 'precious'];
    for (const name of names) {
      mkdirSync(path.join(root, name, 'job'), { recursive: true });
      utimesSync(path.join(root, name), day(6), day(6));
    }
    await openScratch(root, 'pod');
    assert.deepEqual(
      names.filter((name) => existsSync(path.join(root, name))),
      names,
    );
    for (const name of names) utimesSync(path.join(root, name), day(8), day(8));
    await openScratch(root, 'pod');
    assert.deepEqual(
      names.filter((name) => existsSync(path.join(root, name))),
      names.slice(2),
    );
  });

  it('leaves living pods and foreign files alone', async () => {
    mkdirSync(path.join(root, `pod-${hostname()}-${process.ppid}-abc`));
    mkdirSync(path.join(root, 'precious'));
    await openScratch(root, 'pod');
    assert.ok(existsSync(path.join(root, `pod-${hostname()}-${process.ppid}-abc`)));
    assert.ok(existsSync(path.join(root, 'precious')));
  });
});
